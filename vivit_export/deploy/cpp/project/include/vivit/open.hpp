// Open a bundle on the best engine that fits this machine, and say which and why. Nothing falls back
// silently: every engine that was not taken has its reason in `Session::passed_over`.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/bundle.hpp"
#include "vivit/session.hpp"
#ifdef VIVIT_WITH_ONNXRUNTIME
#include "vivit/onnxruntime.hpp"
#endif
#ifdef VIVIT_WITH_TENSORRT
#include "vivit/tensorrt.hpp"
#endif

namespace vivit {

/// What a caller may wish for.
struct Options {
    std::string engine;  ///< tensorrt, tensorrt-rtx, onnxruntime-cuda, onnxruntime-cpu, onnxruntime (CUDA, then CPU),
                         ///< or the name of a compiled engine in the bundle: this one or none
    std::string device;  ///< cpu, cuda or cuda:N: only engines that run there
    int threads = 0;     ///< for preprocessing, and for ONNX Runtime on the CPU; 0 leaves the choice to each
};

/// Engines, best first: GPU before CPU, compiled before interpreted.
constexpr std::array<const char*, 4> engine_order{"tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu"};

namespace detail {

struct Wish {
    std::vector<std::string> engines;
    std::optional<std::string> plan;
    std::string on;
    int gpu = 0;
};

inline void read_device(const std::string& device, Wish& wish) {
    const std::string kind = device.substr(0, device.find(':'));
    const std::string ordinal = device == kind ? "0" : device.substr(kind.size() + 1);
    const bool number =
        !ordinal.empty() && ordinal.size() < 4 && ordinal.find_first_not_of("0123456789") == std::string::npos;
    if (!device.empty() && device != "cpu" && (kind != "cuda" || !number))
        throw UsageError("device='" + device + "' is unknown; use cpu, cuda or cuda:N");
    wish.on = kind;
    wish.gpu = number ? std::stoi(ordinal) : 0;
}

inline Wish read_wish(const Bundle& bundle, const Options& options) {
    Wish wish;
    read_device(options.device, wish);
    const std::string& engine = options.engine;
    const auto known = std::find(engine_order.begin(), engine_order.end(), engine);
    if (engine.empty())
        wish.engines.assign(engine_order.begin(), engine_order.end());
    else if (known != engine_order.end())
        wish.engines = {engine};
    else if (engine == "onnxruntime")
        wish.engines = {"onnxruntime-cuda", "onnxruntime-cpu"};
    else if (bundle.engines().count(engine))
        wish.engines = {bundle.engines().at(engine).flavour}, wish.plan = engine;
    else {
        std::string names;
        for (const char* name : engine_order) names += std::string(name) + ", ";
        for (const auto& [name, sidecar] : bundle.engines()) names += name + ", ";
        throw UsageError("engine '" + engine + "' is unknown; use one of " + names + "onnxruntime");
    }
    return wish;
}

/// Open one engine; throws EnvironmentFault where it does not fit the machine, the wish or this program.
inline std::unique_ptr<Backend> open_backend(const std::string& name, const Bundle& bundle, const Wish& wish,
                                             int threads) {
    const std::string runs_on = name == "onnxruntime-cpu" ? "cpu" : "cuda";
    if (!wish.on.empty() && wish.on != runs_on)
        throw EnvironmentFault("it runs on " + runs_on + ", and " + wish.on + " was asked for");
#ifdef VIVIT_WITH_ONNXRUNTIME
    if (name == "onnxruntime-cpu") return std::make_unique<OnnxRuntimeBackend>(bundle, std::nullopt, threads);
    if (name == "onnxruntime-cuda") return std::make_unique<OnnxRuntimeBackend>(bundle, wish.gpu, threads);
#endif
#ifdef VIVIT_WITH_TENSORRT
    if (name == tensorrt_flavour) return std::make_unique<TensorRTBackend>(bundle, wish.gpu, wish.plan);
#endif
    (void)bundle, (void)threads;
    const bool onnxruntime = name.compare(0, 11, "onnxruntime") == 0;
    throw EnvironmentFault(
        "this program was built without it; configure with " +
        std::string(onnxruntime ? "-DVIVIT_ONNXRUNTIME=ON" : "-DVIVIT_TENSORRT=ON -DTENSORRT_ROOT=FOLDER"));
}

}  // namespace detail

/// Open a bundle on the best engine that fits this machine.
///
/// Throws UsageError: an unknown engine or device; EnvironmentFault: the engine asked for, or every engine, is
/// unavailable, and why; BundleError: an engine was altered.
inline Session open_session(const Bundle& bundle, const Options& options = {}) {
    const detail::Wish wish = detail::read_wish(bundle, options);
    std::map<std::string, std::string> passed_over;
    std::unique_ptr<Backend> backend;
    std::string reasons;
    for (const std::string& name : wish.engines) {
        if (backend) {
            passed_over[name] = backend->name + " comes first in the order of preference";
            continue;
        }
        try {
            backend = detail::open_backend(name, bundle, wish, options.threads);
        } catch (const InputError&) {
            throw;
        } catch (const Error& e) {
            passed_over[name] = e.what();
            reasons += (reasons.empty() ? "" : "; ") + (wish.engines.size() > 1 ? name + ": " : "") + e.what();
        }
    }
    if (!backend)
        throw EnvironmentFault(options.engine.empty()
                                   ? "no engine can run this bundle here: " + reasons
                                   : options.engine + " was asked for and is not available: " + reasons);
    for (const char* name : engine_order)
        if (std::find(wish.engines.begin(), wish.engines.end(), name) == wish.engines.end())
            passed_over[name] = options.engine + " was asked for";
    return Session(bundle.contract(), std::move(backend), std::move(passed_over), options.threads);
}

}  // namespace vivit
