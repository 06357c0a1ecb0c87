// Appends all frames of each video to a file, and prints a line for each: how many, width and height, or what is wrong.
//
//     frames OUT VIDEO...
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <string>
#include <vivit/libav.hpp>
#include <vivit/video.hpp>

extern "C" {
#include <libavutil/log.h>
}

int main(int count, char** words) {
    av_log_set_level(AV_LOG_QUIET);
    std::ofstream out(words[1], std::ios::binary);
    for (int i = 2; i < count; ++i) try {
            const auto video = vivit::open_video(words[i], {}, vivit::open_with_libav);
            vivit::Indices all(std::size_t(video->num_frames()));
            std::iota(all.begin(), all.end(), 0);
            const vivit::FrameBuffer frames = video->read(all);
            out.write(reinterpret_cast<const char*>(frames.data.data()), std::streamsize(frames.data.size()));
            std::printf("%d %d %d\n", frames.count, frames.width, frames.height);
        } catch (const vivit::ClipError& e) {
            std::puts(e.what());
        }
}
