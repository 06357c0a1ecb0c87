// vivit-run BUNDLE CLIP [--size WxH] [--engine NAME] [--device cpu|cuda:N] [--repeat N] [--top K]
//
// Recognises one clip (.npy, .y4m, raw rgb24 with --size; other videos where libav was found) and says how
// long it took: the five best labels, then percentiles of the latency.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "vivit/vivit.hpp"
#ifdef VIVIT_WITH_LIBAV
#include "vivit/libav.hpp"
#endif

using Arguments = std::map<std::string, std::string>;

static Arguments parse(int count, char** words) {
    Arguments arguments{{"--size", ""}, {"--engine", ""}, {"--device", ""}, {"--repeat", "20"}, {"--top", "5"}};
    std::vector<std::string> names;
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        if (word.rfind("--", 0)) names.push_back(word);
        else if (!arguments.count(word) || ++i == count) throw vivit::UsageError(word + " is unknown, or lacks its value");
        else arguments[word] = words[i];
    }
    if (names.size() != 2) throw vivit::UsageError("usage: vivit-run BUNDLE CLIP [--size WxH] [--engine NAME] [--device cpu|cuda:N] [--repeat N] [--top K]");
    arguments["bundle"] = names[0], arguments["clip"] = names[1];
    return arguments;
}

static int number(const Arguments& arguments, const std::string& name) {
    int value = 0;
    if (std::sscanf(arguments.at(name).c_str(), "%d", &value) != 1 || value < 1) throw vivit::UsageError(name + " must be a number from 1 on, got " + arguments.at(name));
    return value;
}

static std::unique_ptr<vivit::Video> open_clip(const Arguments& arguments) {
    vivit::VideoOpener other;
#ifdef VIVIT_WITH_LIBAV
    other = vivit::open_with_libav;
#endif
    int width = 0, height = 0;
    const std::string size = arguments.at("--size");
    if (size.empty()) return vivit::open_video(arguments.at("clip"), {}, other);
    if (std::sscanf(size.c_str(), "%dx%d", &width, &height) != 2) throw vivit::UsageError("--size must be WxH as in 640x360, got " + size);
    return vivit::open_video(arguments.at("clip"), vivit::Size{height, width});
}

static void print_percentiles(const char* what, std::vector<double> ms) {
    std::sort(ms.begin(), ms.end());
    const auto at = [&](double share) { return ms[std::size_t(std::ceil(share * double(ms.size()))) - 1]; };
    std::printf("%-11s p50 %.2f ms, p95 %.2f ms, p99 %.2f ms\n", what, at(0.50), at(0.95), at(0.99));
}

int main(int count, char** words) try {
    const Arguments arguments = parse(count, words);
    const int repeat = number(arguments, "--repeat"), top = number(arguments, "--top");
    const vivit::Bundle bundle(arguments.at("bundle"));
    const vivit::Session session = vivit::open_session(bundle, {arguments.at("--engine"), arguments.at("--device")});
    const auto video = open_clip(arguments);
    std::vector<double> preprocess, inference;
    vivit::Prediction prediction = session(*video);  // also the warm-up
    for (int i = 0; i < repeat; ++i) {
        prediction = session(*video);
        preprocess.push_back(prediction.preprocess_ms), inference.push_back(prediction.inference_ms);
    }
    std::printf("%s: %lld frames of %dx%d, on %s\n", video->name().c_str(), static_cast<long long>(video->num_frames()), video->width(), video->height(), session.details().c_str());
    for (const auto& [label, chance] : prediction.top(top)) std::printf("%6.2f %%  %s\n", 100 * double(chance), label.c_str());
    print_percentiles("preprocess", preprocess), print_percentiles("inference", inference);
    for (const std::string& note : session.notes()) std::fprintf(stderr, "note: %s\n", note.c_str());
} catch (const vivit::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code();
} catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
}
