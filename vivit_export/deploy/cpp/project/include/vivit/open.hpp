// Open a bundle on the best engine for this machine, and say which and why. Nothing falls back
// silently: `Session::passed_over` has the reason against every other engine.
//
// A program can open the engines whose headers its objects include: <vivit/onnxruntime.hpp>, <vivit/tensorrt.hpp>. With
// the CMake targets of these components, this header includes them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/backend.hpp"
#include "vivit/bundle.hpp"
#include "vivit/detail/engine_registry.hpp"
#include "vivit/detail/self_test/self_test.hpp"
#include "vivit/errors.hpp"
#include "vivit/session.hpp"
#include "vivit/signature.hpp"
#ifdef VIVIT_WITH_ONNXRUNTIME
#include "vivit/onnxruntime.hpp"
#endif
#ifdef VIVIT_WITH_TENSORRT
#include "vivit/tensorrt.hpp"
#endif

namespace vivit {

/// What a caller may request.
struct Options {
    std::string engine;  ///< tensorrt, tensorrt-rtx, onnxruntime-cuda, onnxruntime-cpu, onnxruntime (CUDA, then CPU),
                         ///< or the name of a compiled engine in the bundle; no other is accepted
    std::string device;  ///< cpu, cuda or cuda:N: only engines that run there
    int threads = 0;     ///< for preprocessing, and for ONNX Runtime on the CPU; 0: each chooses

    /// PEM files with public keys, or with certificates of signers or of authorities: one of them must have signed the
    /// bundle. None: only those that the environment variable VIVIT_REQUIRE_SIGNATURE names, if any, which must hold in
    /// any case.
    std::vector<std::filesystem::path> require_signature{};
    std::string identity{};  ///< name that the signer's certificate must have; empty: any

    /// First run one golden clip on a device that the engine was not proven on. What passed is remembered in the
    /// user's cache.
    bool self_test = true;
};

namespace detail {

/// Parsed options.
struct Wish {
    std::vector<std::string> engines;  ///< candidates, best first
    std::string device;                ///< cpu or cuda; empty: any
    EngineRequest request;
};

inline void read_device(const std::string& device, Wish& wish) {
    const std::string kind = device.substr(0, device.find(':'));
    const std::string ordinal = device == kind ? "0" : device.substr(kind.size() + 1);
    const bool number =
        !ordinal.empty() && ordinal.size() < 4 && ordinal.find_first_not_of("0123456789") == std::string::npos;
    if (!device.empty() && device != "cpu" && (kind != "cuda" || !number))
        throw UsageError("device='" + device + "' is unknown; use cpu, cuda or cuda:N");
    wish.device = kind;
    wish.request.gpu = number ? std::stoi(ordinal) : 0;
}

[[nodiscard]] inline Wish read_wish(const Bundle& bundle, const Options& options) {
    Wish wish;
    wish.request.threads = options.threads;
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
        wish.engines = {bundle.engines().at(engine).flavor}, wish.request.plan = engine;
    else {
        std::string names;
        for (const char* name : engine_order) names += std::string(name) + ", ";
        for (const auto& [name, sidecar] : bundle.engines()) names += name + ", ";
        throw UsageError("engine '" + engine + "' is unknown; use one of " + names + "onnxruntime");
    }
    return wish;
}

/// Open one engine.
///
/// @throws EnvironmentFault  it does not fit the machine, the request or this program
[[nodiscard]] inline std::unique_ptr<Backend> open_engine(const std::string& name, const Bundle& bundle,
                                                          const Wish& wish) {
    const std::string runs_on = name == "onnxruntime-cpu" ? "cpu" : "cuda";
    if (!wish.device.empty() && wish.device != runs_on)
        throw EnvironmentFault("it runs on " + runs_on + ", but " + wish.device + " was requested");
    const std::size_t place = engine_place(name);
    if (const EngineOpener open = place < engine_order.size() ? engine_openers[place].load() : nullptr)
        return open(bundle, wish.request);
    const bool onnxruntime = name.compare(0, 11, "onnxruntime") == 0;
    throw EnvironmentFault(
        "this program was built without it; configure with " +
        std::string(onnxruntime ? "-DVIVIT_ONNXRUNTIME=ON" : "-DVIVIT_TENSORRT=ON -DTENSORRT_ROOT=FOLDER"));
}

}  // namespace detail

/// The engines that this program was built with, best first. To find out whether one fits the machine, open it.
[[nodiscard]] inline std::vector<std::string> engines_of_this_program() {
    std::vector<std::string> names;
    for (std::size_t place = 0; place < engine_order.size(); ++place)
        if (detail::engine_openers[place].load()) names.emplace_back(engine_order[place]);
    return names;
}

/// Open a bundle on the best engine for this machine.
///
/// @param bundle   a verified bundle; it need not outlive this call
/// @param options  what the caller requests
/// @throws UsageError        an unknown engine or device
/// @throws EnvironmentFault  the requested engine, or every engine, is unavailable; says why
/// @throws BundleError       an engine was altered
/// @throws DriftError        the engine computes wrongly on this device; no other is tried
/// @throws SignatureError    the bundle is not signed by whom it must be signed by
[[nodiscard]] inline Session open_session(const Bundle& bundle, const Options& options = {}) {
    (void)require_signature(bundle, options.require_signature, options.identity);
    const detail::Wish wish = detail::read_wish(bundle, options);
    std::map<std::string, std::string> passed_over;
    std::unique_ptr<Backend> backend;
    std::string reasons;
    for (const std::string& name : wish.engines) {
        if (backend) {
            passed_over[name] = backend->name() + " comes first in the order of preference";
            continue;
        }
        try {
            backend = detail::open_engine(name, bundle, wish);
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
                                   : options.engine + " was requested but is not available: " + reasons);
    for (const char* name : engine_order)
        if (std::find(wish.engines.begin(), wish.engines.end(), name) == wish.engines.end())
            passed_over[name] = options.engine + " was requested";
    const Place place = backend->place();
    Session session(bundle.contract(), std::move(backend), std::move(passed_over), options.threads);
    if (options.self_test) session.self_test_ = detail::self_test(session, place, bundle);
    return session;
}

}  // namespace vivit
