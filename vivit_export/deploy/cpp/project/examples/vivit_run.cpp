// Classifies one clip (.npy, .y4m, raw rgb24 with --size; any video if libav was found). Prints the best labels, then
// percentiles of the latency.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "vivit/vivit.hpp"
#ifdef VIVIT_WITH_LIBAV
#include "vivit/libav.hpp"
extern "C" {
#include <libavutil/log.h>
}
#endif

using Arguments = std::map<std::string, std::string>;

static constexpr const char* usage =
    "usage: vivit-run BUNDLE CLIP [--size WxH] [--decode auto|full] [--engine NAME] [--device cpu|cuda:N] [--repeat N] "
    "[--top K] [--self-test yes|no] [--require-signature FILE] [--identity NAME]";

static Arguments parse(int count, char** words) {
    if (count < 3) throw vivit::UsageError(usage);
    Arguments given{{"bundle", words[1]}, {"clip", words[2]}, {"--size", ""}, {"--engine", ""}, {"--device", ""}};
    given["--require-signature"] = given["--identity"] = "";
    given["--decode"] = "auto", given["--repeat"] = "20", given["--top"] = "5";
    given["--self-test"] = "yes";
    for (int i = 3; i < count; i += 2) {
        if (!given.count(words[i]) || i + 1 == count)
            throw vivit::UsageError(words[i] + (" is not understood; " + std::string(usage)));
        given[words[i]] = words[i + 1];
    }
    return given;
}

/// A whole number from 1 on, or 0 for any other text.
static int positive(const std::string& text) {
    int value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
    return fault == std::errc() && end == text.data() + text.size() ? std::max(value, 0) : 0;
}

static int number(const std::string& name, const std::string& text) {
    const int value = positive(text);
    if (!value)
        throw vivit::UsageError(name + " must be a whole number from 1 to " +
                                std::to_string(std::numeric_limits<int>::max()) + ", got " + text);
    return value;
}

static bool yes(const std::string& name, const std::string& text) {
    if (text != "yes" && text != "no") throw vivit::UsageError(name + " must be yes or no, got " + text);
    return text == "yes";
}

static vivit::VideoOpener any_video(const std::string& decode) {
    if (decode != "auto" && decode != "full") throw vivit::UsageError("--decode must be auto or full, got " + decode);
#ifdef VIVIT_WITH_LIBAV
    av_log_set_level(AV_LOG_QUIET);
    vivit::Reading reading;
    if (decode == "full") reading.decode = vivit::Decode::full;
    reading.note = [](const std::filesystem::path& path, const std::string& why) {
        std::fprintf(stderr, "note: %s is decoded in full: %s\n", path.c_str(), why.c_str());
    };
    return vivit::LibavOpener{reading};
#else
    if (decode == "full") throw vivit::UsageError("--decode full needs a program that was built with -DVIVIT_LIBAV=ON");
    return {};
#endif
}

static std::unique_ptr<vivit::Video> open_clip(const std::string& path, const std::string& size,
                                               const vivit::VideoOpener& other) {
    if (size.empty()) return vivit::open_video(path, {}, other);
    const std::size_t mark = std::min(size.find('x'), size.size());
    const int width = positive(size.substr(0, mark)), height = positive(size.substr(std::min(mark + 1, size.size())));
    if (!width || !height) throw vivit::UsageError("--size must be WxH, got " + size);
    return vivit::open_video(path, vivit::Size{height, width});
}

/// What others wrote, as a terminal only shows it.
static std::string shown(const std::string& text) { return vivit::detail::one_line(text); }

static void print_percentiles(const char* stage, std::vector<double> ms) {
    std::sort(ms.begin(), ms.end());
    const auto at = [&](double share) { return ms[std::size_t(std::ceil(share * double(ms.size()))) - 1]; };
    std::printf("%-11s p50 %.2f ms, p95 %.2f ms, p99 %.2f ms\n", stage, at(0.50), at(0.95), at(0.99));
}

int main(int count, char** words) try {
    Arguments given = parse(count, words);
    const int repeat = number("--repeat", given["--repeat"]), top = number("--top", given["--top"]);
    const vivit::VideoOpener other = any_video(given["--decode"]);
    const vivit::Bundle bundle(given["bundle"]);
    vivit::Options options{given["--engine"], given["--device"]};
    if (!given["--require-signature"].empty()) options.require_signature = {given["--require-signature"]};
    options.identity = given["--identity"];
    options.self_test = yes("--self-test", given["--self-test"]);
    const vivit::Session session = vivit::open_session(bundle, options);
    const auto video = open_clip(given["clip"], given["--size"], other);
    vivit::Prediction prediction = session(*video);  // not timed: engines prepare themselves at the first clip
    std::vector<double> preprocess, inference;
    for (int i = 0; i < repeat; ++i) {
        prediction = session(*video);
        preprocess.push_back(prediction.preprocess_ms), inference.push_back(prediction.inference_ms);
    }
    std::printf("%s: %lld frames of %dx%d, on %s\n", shown(given["clip"]).c_str(),
                static_cast<long long>(video->num_frames()), video->width(), video->height(),
                session.details().c_str());
    const bool values = prediction.task == vivit::Task::regression;
    for (const auto& [label, score] : prediction.top(top))
        std::printf(values ? "%10.6g  %s\n" : "%6.2f %%  %s\n", (values ? 1 : 100) * double(score),
                    shown(label).c_str());
    print_percentiles("preprocess", preprocess), print_percentiles("inference", inference);
    for (const std::string& note : session.notes()) std::fprintf(stderr, "note: %s\n", note.c_str());
} catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", shown(e.what()).c_str());
    const auto* known = dynamic_cast<const vivit::Error*>(&e);
    return known ? known->exit_code() : 1;
}
