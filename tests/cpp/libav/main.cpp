// Reads videos as a list of requests says, and prints one JSON line for each, for a test in Python to compare.
//
//     frames REQUESTS.json
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vivit/detail/manifest/sha256.hpp>
#include <vivit/libav.hpp>
#include <vivit/video.hpp>

extern "C" {
#include <libavutil/log.h>
}

using nlohmann::json;

/// The SHA-256 of each frame.
static json hashes_of(const vivit::Frames& frames) {
    json hashes = json::array();
    for (int i = 0; i < frames.count; ++i) {
        vivit::detail::Sha256 digest;
        digest.add(frames.data + std::size_t(i) * frames.frame_bytes(), frames.frame_bytes());
        hashes.push_back(digest.hex());
    }
    return hashes;
}

/// The same frames again by their numbers, after the video was asked how many it has, and how large.
static vivit::FrameBuffer read_by_number(vivit::Video& video, const json& request, json& answer) {
    answer["num_frames"] = video.num_frames(), answer["size"] = {video.height(), video.width()};
    return video.read(request["indices"].get<vivit::Indices>());
}

static json answer(const json& request) {
    json answer{{"notes", json::array()}};
    vivit::Reading reading;
    reading.threads = request.value("threads", 0);
    if (request.value("decode", "auto") == "full") reading.decode = vivit::Decode::full;
    reading.note = [&](const std::filesystem::path&, const std::string& why) { answer["notes"].push_back(why); };
    try {
        const auto video = vivit::open_video(request["path"].get<std::string>(), {}, vivit::LibavOpener{reading});
        const bool by_number = request.value("by_number", false);
        const vivit::FrameBuffer frames =
            by_number ? read_by_number(*video, request, answer) : video->read_chosen([&](std::int64_t num_frames) {
                if (request.contains("indices")) return request["indices"].get<vivit::Indices>();
                vivit::Indices all(std::size_t(num_frames), 0);
                std::iota(all.begin(), all.end(), 0);
                return all;
            });
        answer["shape"] = {frames.count, frames.height, frames.width, 3};
        answer["frames"] = hashes_of(frames);
    } catch (const vivit::ClipError& e) {
        answer["error"] = e.what();
    }
    return answer;
}

int main(int, char** words) {
    av_log_set_level(AV_LOG_QUIET);
    std::ifstream file(words[1]);
    for (const json& request : json::parse(file)) std::cout << answer(request) << '\n';
}
