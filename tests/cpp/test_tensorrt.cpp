// The TensorRT session's logic, on a GPU made of host memory (fake/). VIVIT_TEST_BUNDLE names a bundle with an engine
// "first" for sm_90 (batches 1 to 4), one "second" for sm_100 (2 to 4), and one "stale" of another graph. Beside it
// lies another, with golden clips and the engines "first" and "verified".
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#include <vivit/detail/parallel.hpp>
#include <vivit/tensorrt.hpp>
#include <vivit/vivit.hpp>

using vivit::detail::tensorrt_flavor;
using vivit::detail::tensorrt_title;

namespace {

const std::string title = tensorrt_title;

std::string test_bundle() {
    const char* path = std::getenv("VIVIT_TEST_BUNDLE");
    REQUIRE(path);
    return path;
}

/// A machine on which the bundle's first engine runs, unless a test changes something.
struct Machine {
    Machine() : bundle(test_bundle()) {
        using nvinfer1::DataType;
        using nvinfer1::TensorIOMode;
        fake::gpu().status = cudaSuccess;
        fake::gpu().devices = 1, fake::gpu().sm = 90, fake::gpu().asked = 0, fake::gpu().launched = 0;
        fake::gpu().budget = std::size_t(1) << 30;
        fake::trt().failing.clear(), fake::trt().plans.clear();
        fake::trt().contexts = 0, fake::trt().eager = false;
        const auto& io = bundle.contract().io;
        fake::trt().tensors = {{io.input.name, {TensorIOMode::kINPUT, DataType::kUINT8, sides(io.input)}}};
        for (const vivit::Tensor& output : io.outputs)
            fake::trt().tensors.push_back({output.name, {TensorIOMode::kOUTPUT, DataType::kFLOAT, sides(output)}});
        const bool rtx = tensorrt_flavor == std::string("tensorrt-rtx");
        const std::array<int, 4> version = rtx ? std::array<int, 4>{1, 7, 1, 116} : std::array<int, 4>{11, 4, 0, 106};
        std::copy(version.begin(), version.end(), fake::trt().version);
    }

    ~Machine() {
        CHECK(fake::gpu().memory.empty());
        CHECK(fake::gpu().streams == 0);
        CHECK(fake::gpu().graphs == 0);
        CHECK(fake::trt().alive == 0);
    }

    static std::vector<std::int64_t> sides(const vivit::Tensor& tensor) {
        return {tensor.clip_shape.begin(), tensor.clip_shape.end()};
    }

    [[nodiscard]] vivit::Session open(const vivit::Options& options = {}) const {
        return vivit::open_session(bundle, options);
    }

    std::vector<std::uint8_t> clips(std::size_t count, unsigned seed = 0) const {
        std::mt19937 random(seed);
        std::vector<std::uint8_t> bytes(count * bundle.contract().io.input.clip_bytes());
        for (std::uint8_t& byte : bytes) byte = std::uint8_t(random());
        return bytes;
    }

    std::vector<float> expected(const std::vector<std::uint8_t>& clips, const std::string& output) const {
        const std::size_t clip = bundle.contract().io.input.clip_bytes(), count = clips.size() / clip;
        const std::size_t elements = bundle.contract().output(output)->clip_elements();
        std::vector<float> values(count * elements);
        fake::compute(clips.data(), clip, values.data(), elements, count);
        return values;
    }

    vivit::Bundle bundle;
    vivit::Bundle checked{test_bundle() + "-checked"};
};

/// The message of the error that `call` throws; its class must be E.
template <typename E, typename Call>
std::string message(Call call) {
    try {
        static_cast<void>(call());
    } catch (const E& e) {
        return e.what();
    }
    FAIL("nothing was thrown");
    return "";
}

void check_contains(const std::string& text, const std::string& part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
}

}  // namespace

static_assert(std::is_nothrow_move_constructible_v<vivit::Session> && !std::is_copy_constructible_v<vivit::Session>);
static_assert(std::is_nothrow_move_constructible_v<vivit::Bundle> && std::is_nothrow_move_assignable_v<vivit::Bundle>);
static_assert(!std::is_convertible_v<std::string, vivit::Bundle> && !std::is_move_constructible_v<vivit::Backend>);

TEST_CASE_FIXTURE(Machine, "it is preferred and runs batches of any size") {
    const vivit::Session session = open();
    CHECK(session.engine() == tensorrt_flavor);
    CHECK(session.batches() == std::pair<int, int>{1, 4});
    check_contains(session.details(), ", GPU 0 (sm_90), fp32, engine first");
    CHECK(session.passed_over().size() == 3);
    CHECK(fake::trt().plans.size() == 1);
    for (const std::size_t count : std::vector<std::size_t>{1, 3, 4, 11, 3}) {
        const auto batch = clips(count, unsigned(count));
        const vivit::Outputs results = session.run(batch);
        CHECK(results.at("logits") == expected(batch, "logits"));
        CHECK(results.at("embedding") == expected(batch, "embedding"));
    }
}

TEST_CASE_FIXTURE(Machine, "a GPU is its name and driver, and is not tested again where the engine was verified") {
    const vivit::detail::Cuda cuda(0);
    CHECK(cuda.device().name == "NVIDIA H100 80GB HBM3");
    CHECK(cuda.device().driver == vivit::detail::gpu_driver(13000));
    vivit::Options options;
    options.engine = "verified";  // on this GPU with any of these drivers, says the bundle, which has golden clips
    CHECK(vivit::open_session(checked, options).self_test() ==
          "not needed: verified on NVIDIA H100 80GB HBM3 when the engine was built");
    options.engine = "first";
    const std::string said = message<vivit::DriftError>([&] { return vivit::open_session(checked, options); });
    check_contains(said, "engine first computes wrongly on NVIDIA H100 80GB HBM3 (" + cuda.device().driver + ")");
    check_contains(said, ": for the first golden clip of " + checked.path().string() + ", ");
    check_contains(said, " is above 0.0001; update its driver");
    options.self_test = false;
    CHECK(vivit::open_session(checked, options).self_test() == "left out");
}

TEST_CASE_FIXTURE(Machine, "each batch size is captured once, and replayed") {
    const vivit::Session session = open();
    for (int i = 0; i < 3; ++i) static_cast<void>(session.infer(clips(5)));  // 4 and 1
    CHECK(fake::gpu().launched == 4);
    CHECK(fake::gpu().graphs == 2);
    CHECK(fake::trt().contexts == 1);
    CHECK(fake::trt().eager == (tensorrt_flavor == std::string("tensorrt-rtx")));
}

TEST_CASE_FIXTURE(Machine, "eight threads share a session, each with a context of its own") {
    const vivit::Session session = open();
    std::vector<std::vector<std::uint8_t>> batches;
    for (unsigned i = 0; i < 8; ++i) batches.push_back(clips(1 + i % 4, i));
    std::atomic<int> next{0}, wrong{0};
    vivit::detail::on_threads(8, [&] {
        for (int i = next++; i < 64; i = next++) {
            const auto& batch = batches[std::size_t(i) % 8];
            wrong += session.infer(batch) != expected(batch, "logits");
        }
    });
    CHECK(wrong == 0);
    CHECK(fake::trt().contexts <= 8);
}

TEST_CASE_FIXTURE(Machine, "eight threads share a preprocessor that has threads itself") {
    const vivit::Session session = open({"", "", 2});
    const int count = bundle.contract().clip.num_frames;
    std::vector<std::uint8_t> frames(std::size_t(count) * 90 * 120 * 3, 7);
    const vivit::Frames view{frames.data(), count, 90, 120};
    const std::vector<float> alone = session(view).logits;
    std::atomic<int> wrong{0};
    vivit::detail::on_threads(8, [&] {
        for (int i = 0; i < 4; ++i) wrong += session(view).logits != alone;
    });
    CHECK(wrong == 0);
}

TEST_CASE_FIXTURE(Machine, "a batch smaller than the profile is filled up, and cut again") {
    fake::gpu().sm = 100;
    const vivit::Session session = open();
    CHECK(session.batches() == std::pair<int, int>{2, 4});
    for (const std::size_t count : std::vector<std::size_t>{1, 5}) {
        const auto batch = clips(count);
        CHECK(session.infer(batch) == expected(batch, "logits"));
    }
}

TEST_CASE_FIXTURE(Machine, "without a graph it runs, and says so") {
    const vivit::Session session = open();
    fake::trt().failing = {"capture"};
    const auto batch = clips(2);
    for (int i = 0; i < 3; ++i) CHECK(session.infer(batch) == expected(batch, "logits"));
    CHECK(fake::gpu().launched == 0);
    CHECK(session.notes() ==
          std::vector<std::string>{
              "batches of 2 run without a CUDA graph: the engine could not run a batch of 2 ([capture] refused)"});
}

TEST_CASE_FIXTURE(Machine, "no GPU, no TensorRT") {
    const auto refusal = [&](const vivit::Options& options) {
        return message<vivit::EnvironmentFault>([&] { return open(options); });
    };
    fake::gpu().status = cudaErrorInsufficientDriver;
    check_contains(refusal({tensorrt_flavor, ""}), "no NVIDIA GPU can be used here (cudaErrorInsufficientDriver)");
    fake::gpu().status = cudaSuccess, fake::gpu().devices = 0;
    check_contains(refusal({tensorrt_flavor, ""}), "(none is visible); check that nvidia-smi lists it");
    fake::gpu().devices = 1;
    check_contains(refusal({tensorrt_flavor, "cuda:1"}), "there is no GPU 1: this machine has 1, counted from 0");
    check_contains(refusal({"", "cpu"}), "it runs on cuda, but cpu was requested");
    CHECK(fake::trt().plans.empty());
}

TEST_CASE_FIXTURE(Machine, "an engine for another machine is not touched") {
    const std::string built = title + " " + vivit::detail::tensorrt_version();
    fake::gpu().sm = 75;
    std::string text = message<vivit::EnvironmentFault>([&] { return open({tensorrt_flavor, ""}); });
    check_contains(text,
                   "first was built for " + built + " on sm_90; this machine has " + built + " on sm_75; second was");
    check_contains(text, "vivit build " + test_bundle() + " --target " + tensorrt_flavor);
    fake::gpu().sm = 90, fake::trt().version[3] = 7;
    text = message<vivit::EnvironmentFault>([&] { return open({"first", ""}); });
    check_contains(text, "this machine has " + title + " " + vivit::detail::tensorrt_version() + " on sm_90");
    CHECK(fake::trt().plans.empty());
}

TEST_CASE_FIXTURE(Machine, "an engine that was swapped after the check is refused") {
    const auto copy =
        std::filesystem::temp_directory_path() / ("vivit-swapped-" + std::to_string(std::random_device{}()));
    std::filesystem::copy(test_bundle(), copy, std::filesystem::copy_options::recursive);
    const vivit::Bundle verified(copy);
    std::ofstream(copy / "engines/first.plan") << "another plan";
    check_contains(message<vivit::BundleError>([&] { return vivit::open_session(verified); }),
                   "first.plan is not the file that bundle.json describes: it was altered");
    std::filesystem::remove_all(copy);
    CHECK(fake::trt().plans.empty());
}

TEST_CASE_FIXTURE(Machine, "an engine of another graph is refused") {
    check_contains(message<vivit::BundleError>([&] { return open({"stale", ""}); }),
                   "stale.plan was built from another model.onnx than the one beside it");
}

TEST_CASE_FIXTURE(Machine, "other inputs and outputs are refused before anything is bound") {
    auto& tensors = fake::trt().tensors;
    const auto original = tensors;
    const auto refusal = [&] { return message<vivit::BundleError>([&] { return open(); }); };
    tensors[0].second.type = nvinfer1::DataType::kHALF;
    check_contains(refusal(),
                   "engine first has frames as HALF (8, 64, 64, 3), but the contract says uint8 (8, 64, 64, 3)");
    tensors = original, tensors[1].second.clip_shape = {9};
    check_contains(refusal(), "as FLOAT (9,), but the contract says float32 (8,); build it again");
    tensors = original, tensors[1].second.mode = nvinfer1::TensorIOMode::kINPUT;
    check_contains(refusal(), "engine first has no output logits");
    tensors = original, tensors.pop_back();
    check_contains(refusal(), "engine first has no output embedding");
    CHECK(fake::gpu().memory.empty());
}

TEST_CASE_FIXTURE(Machine, "no status is ignored, and afterwards it works again") {
    const vivit::Session session = open();
    const auto batch = clips(2);
    for (const auto& [method, text] : std::map<std::string, std::string>{
             {"createExecutionContext",
              "cannot make an execution context ([createExecutionContext] refused); free GPU memory"},
             {"setOptimizationProfileAsync", "could not take its profile"},
             {"setTensorAddress", "could not bind frames ([setTensorAddress] refused)"},
             {"setInputShape", "could not take a batch of 2"},
             {"enqueueV3", "could not run a batch of 2"}}) {
        fake::trt().failing = {method};
        check_contains(message<vivit::EnvironmentFault>([&] { return session.infer(batch); }), text);
        fake::trt().failing.clear();
    }
    CHECK(session.infer(batch) == expected(batch, "logits"));
}

TEST_CASE_FIXTURE(Machine, "what TensorRT said is told") {
    fake::trt().failing = {"deserializeCudaEngine"};
    const std::string text = message<vivit::EnvironmentFault>([&] { return open({"first", ""}); });
    check_contains(text, title + " refuses the engine first ([deserializeCudaEngine] refused)");
}

TEST_CASE_FIXTURE(Machine, "full memory is told, and all is freed") {
    const vivit::Session session = open();
    for (std::size_t budget : {std::size_t(100), 4 * bundle.contract().io.input.clip_bytes() + 100}) {
        fake::gpu().budget = budget;
        check_contains(message<vivit::EnvironmentFault>([&] { return session.infer(clips(1)); }),
                       "GPU 0 failed with cudaErrorMemoryAllocation; free GPU memory, or take a smaller batch");
    }
}

TEST_CASE_FIXTURE(Machine, "clips that are none are refused") {
    const vivit::Session session = open();
    check_contains(message<vivit::ClipError>([&] { return session.run(std::vector<std::uint8_t>{}); }),
                   "there are no clips in the batch");
    check_contains(message<vivit::ClipError>([&] { return session.run(std::vector<std::uint8_t>(7)); }),
                   "a batch of 7 values is not a whole number of clips");
    check_contains(message<vivit::ClipError>([&] { return session.run(std::vector<float>(7)); }),
                   "clips must be uint8, got float32");
}
