// Times vivit::Preprocessor on one clip, for benchmarks/preprocess_cpp.py: one JSON line per round asked for on stdin.
//
//     preprocess_cpp WIDTH HEIGHT NUM_FRAMES THREADS FRAMES OUT
//
// FRAMES is a file of uint8 (T, h, w, 3); the pixel values of the first round go to OUT. The memory of the results is
// allocated anew in every round, as the other side does it.
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>
#include <vivit/preprocess.hpp>
#include <vivit/video.hpp>

int main(int, char** words) {
    const int width = std::stoi(words[1]), height = std::stoi(words[2]), count = std::stoi(words[3]);
    vivit::Clip clip;
    clip.num_frames = count, clip.height = clip.width = 224;
    vivit::Preprocess fields;
    fields.shortest_edge = 256;
    const vivit::Preprocessor preprocessor(clip, fields, std::stoi(words[4]));
    const auto video = vivit::open_video(words[5], vivit::Size{height, width});
    vivit::Indices all;
    for (int i = 0; i < count; ++i) all.push_back(i);
    const vivit::FrameBuffer frames = video->read(all);
    bool first = true;
    for (std::string line; std::getline(std::cin, line); first = false) {
        const auto start = std::chrono::steady_clock::now();
        const std::vector<std::uint8_t> crops = preprocessor.crops(frames);
        const auto middle = std::chrono::steady_clock::now();
        const std::unique_ptr<float[]> pixels(new float[crops.size()]);
        preprocessor.to_pixels(crops.data(), 1, pixels.get());
        const auto end = std::chrono::steady_clock::now();
        if (first)
            std::ofstream(words[6], std::ios::binary)
                .write(reinterpret_cast<const char*>(pixels.get()), std::streamsize(crops.size() * sizeof(float)));
        const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
        std::cout << nlohmann::json{{"crops", seconds(start, middle)}, {"pixels", seconds(start, end)}} << std::endl;
    }
}
