// Does what a list of requests says and prints one JSON line for each, for a test in Python to compare.
//
//     probe REQUESTS.json
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>
#include <vivit/detail/cores.hpp>
#include <vivit/detail/libav/nal.hpp>
#include <vivit/detail/manifest/contract_reader.hpp>
#include <vivit/detail/manifest/file_bytes.hpp>
#include <vivit/detail/parallel.hpp>
#include <vivit/detail/pixels/loops.hpp>
#include <vivit/vivit.hpp>

using nlohmann::json;
using Bytes = std::vector<std::uint8_t>;

static Bytes read_file(const std::string& path) {
    const std::vector<char> bytes = vivit::detail::read_bytes(path);
    return {bytes.begin(), bytes.end()};
}

template <typename T>
static void append(const std::string& path, const std::vector<T>& values) {
    std::ofstream(path, std::ios::binary | std::ios::app)
        .write(reinterpret_cast<const char*>(values.data()), std::streamsize(values.size() * sizeof(T)));
}

/// Crops and pixel values of frames that lie in a pool of bytes; appended to two files.
static json preprocess(const json& request) {
    static const Bytes pool = read_file(request.at("pool"));
    const auto clip = vivit::detail::As<vivit::Clip>::read(request.at("clip"), "clip");
    const auto fields = vivit::detail::As<vivit::Preprocess>::read(request.at("preprocess"), "preprocess");
    const vivit::Preprocessor preprocessor(clip, fields, request.at("threads"));
    const std::size_t offset = request.at("offset");
    // Of exactly this size, so that a read beyond the last frame is seen.
    const vivit::Frames at{nullptr, request.at("count"), request.at("height"), request.at("width")};
    const Bytes frames(pool.begin() + std::ptrdiff_t(offset),
                       pool.begin() + std::ptrdiff_t(offset + std::size_t(at.count) * at.frame_bytes()));
    const Bytes crops = preprocessor.crops({frames.data(), at.count, at.height, at.width}, request.at("position"));
    std::vector<float> pixels(crops.size());
    preprocessor.to_pixels(crops.data(), 1, pixels.data());
    append(request.at("crops"), crops);
    append(request.at("pixels"), pixels);
    return {{"bytes", crops.size()}};
}

static json sample(const json& request) {
    const auto clip = vivit::detail::As<vivit::Clip>::read(request.at("clip"), "clip");
    return {{"clip", vivit::clip_indices(request.at("frames"), clip)},
            {"views", vivit::view_indices(request.at("frames"), clip)}};
}

static json read_video(const json& request) {
    const auto size =
        request.contains("size") ? std::optional<vivit::Size>(request["size"].get<vivit::Size>()) : std::nullopt;
    const auto video = vivit::open_video(request.at("path").get<std::string>(), size);
    const vivit::FrameBuffer frames = video->read(request.at("indices").get<vivit::Indices>());
    append(request.at("out"), frames.data);
    return {{"frames", video->num_frames()}, {"height", video->height()}, {"width", video->width()}};
}

static json infer(const json& request) {
    const vivit::Bundle bundle(request.at("bundle").get<std::string>());
    const vivit::Session session = vivit::open_session(bundle, {"onnxruntime-cpu", ""});
    const vivit::Outputs outputs = session.run(read_file(request.at("clips")));
    return {{"logits", outputs.at("logits")},
            {"embedding", outputs.at("embedding")},
            {"details", session.details()},
            {"passed_over", session.passed_over()}};
}

/// What a GPU would run in ONNX Runtime, on the CPU.
class TriedOnCpu final : public vivit::OnnxRuntimeBackend {
public:
    explicit TriedOnCpu(const vivit::Bundle& bundle) : OnnxRuntimeBackend(bundle, 0, Ort::SessionOptions{}) {}
};

static json infer_as_gpu(const json& request) {
    const vivit::Bundle bundle(request.at("bundle").get<std::string>());
    TriedOnCpu backend(bundle);
    const Bytes clips = read_file(request.at("clips"));
    const vivit::Outputs outputs = backend.run(clips.data(), request.at("count"));
    return {{"logits", outputs.at("logits")},
            {"embedding", outputs.at("embedding")},
            {"details", backend.details()},
            {"files", backend.place().files}};
}

/// float32 pixel values instead of crops, for a bundle that takes them.
static json infer_pixels(const json& request) {
    const vivit::Bundle bundle(request.at("bundle").get<std::string>());
    const vivit::Session session = vivit::open_session(bundle, {"onnxruntime", "cpu"});
    if (session.contract().io.mode != vivit::InputMode::pixels) return {{"logits", session.run(std::vector<float>(7))}};
    const Bytes clips = read_file(request.at("clips"));
    std::vector<float> pixels(clips.size());
    session.preprocessor().to_pixels(clips.data(), clips.size() / session.contract().clip.num_bytes(), pixels.data());
    return {{"from_pixels", session.run(pixels)["logits"]}, {"from_crops", session.infer(clips)}};
}

static json predict(const json& request) {
    const vivit::Bundle bundle(request.at("bundle").get<std::string>());
    const vivit::Session session = vivit::open_session(bundle);
    const auto video = vivit::open_video(request.at("path").get<std::string>());
    const vivit::Prediction all = session(*video);
    json result{{"logits", all.logits}, {"top", all.top(3)}};
    if (session.contract().clip.views == std::array<int, 2>{1, 1})
        result["one"] = session(vivit::read_clip(*video, session.contract())).logits;
    return result;
}

/// The same clips from several threads at once: the number of results that differ.
static json share(const json& request) {
    const vivit::Bundle bundle(request.at("bundle").get<std::string>());
    const vivit::Session session = vivit::open_session(bundle, {"onnxruntime-cpu", "", 1});
    const Bytes clips = read_file(request.at("clips"));
    const std::vector<float> expected = session.infer(clips);
    std::atomic<int> different{0};
    vivit::detail::on_threads(8, [&] {
        for (int i = 0; i < 3; ++i) different += session.infer(clips) != expected;
    });
    return {{"different", different.load()}};
}

static json open(const json& request) {
    const std::filesystem::path folder(request.at("bundle").get<std::string>());
    const vivit::Bundle bundle(folder);
    if (request.contains("flip")) {  // what another process might do after the files were verified
        std::fstream file(folder / request["flip"].get<std::string>(), std::ios::in | std::ios::out | std::ios::binary);
        const char first = static_cast<char>(file.peek() ^ 1);
        file.put(first);
    }
    vivit::Options options{request.value("engine", ""), request.value("device", "")};
    options.require_signature = request.value("files", std::vector<std::filesystem::path>());
    options.identity = request.value("identity", "");
    options.self_test = request.value("self_test", true);
    const vivit::Session session = vivit::open_session(bundle, options);
    return request.at("do") == "self_test" ? json{{"self_test", session.self_test()}}
                                           : json{{"engine", session.engine()}};
}

/// Who signed a bundle.
static json signer(const json& request) {
    const vivit::Bundle bundle(request.at("bundle").get<std::string>());
    const auto files = request.at("files").get<std::vector<std::filesystem::path>>();
    const vivit::Signer found = vivit::verify_signature(bundle, files, request.value("identity", ""));
    return {{"key", found.key}, {"names", found.names}, {"title", found.title()}};
}

/// How many cores control groups and the system leave.
static json cores(const json& request) {
    const auto path = [&](const char* key) { return std::filesystem::path(request.at(key).get<std::string>()); };
    return {{"cores", vivit::detail::usable_cores({path("groups"), path("own")})}};
}

/// What the headers of a packet say.
static json packet_headers(const json& request) {
    const std::string codec = request.at("codec");
    // Of exactly these sizes, so that a read beyond the last byte is seen.
    const Bytes extradata = request.at("extradata"), packet = request.at("packet");
    const std::size_t length = vivit::detail::length_bytes_of(codec, {extradata.data(), extradata.size()});
    const vivit::detail::Bytes bytes{packet.data(), packet.size()};
    const auto is_referred = vivit::detail::is_referred_to(bytes, codec, length);
    return {{"length_bytes", length},
            {"idr", vivit::detail::holds_idr(bytes, length)},
            {"referred", is_referred ? json(*is_referred) : json()}};
}

static json answer(const json& request) {
    const std::string what = request.at("do");
    vivit::detail::portable_loops_only = request.value("loops", "") == "portable";
    if (what == "preprocess") return preprocess(request);
    if (what == "sample") return sample(request);
    if (what == "video") return read_video(request);
    if (what == "cores") return cores(request);
    if (what == "headers") return packet_headers(request);
    if (what == "saturates") return {{"saturates", vivit::detail::saturates(request.at("file"))}};
    if (what == "infer") return infer(request);
    if (what == "infer_as_gpu") return infer_as_gpu(request);
    if (what == "infer_pixels") return infer_pixels(request);
    if (what == "predict") return predict(request);
    if (what == "share") return share(request);
    if (what == "open" || what == "self_test") return open(request);
    if (what == "signer") return signer(request);
    if (what == "bundle") return {{"labels", vivit::Bundle(request.at("bundle").get<std::string>()).contract().labels}};
    throw std::logic_error("no such request: " + what);
}

int main(int, char** words) {
    std::ifstream file(words[1]);
    for (const json& request : json::parse(file)) {
        try {
            std::cout << answer(request) << '\n';
        } catch (const vivit::Error& e) {
            std::cout << json{{"error", e.what()}, {"code", e.exit_code()}} << '\n';
        }
    }
}
