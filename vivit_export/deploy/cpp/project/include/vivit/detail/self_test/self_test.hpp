// Proves an opened session on this device with one golden clip, before it answers for anything; the rules and sentences
// are those of vivit_export/runtime/drift/self_test.py.
#pragma once

#include <map>
#include <string>

#include "vivit/backend.hpp"
#include "vivit/bundle.hpp"
#include "vivit/detail/manifest/sha256.hpp"
#include "vivit/detail/self_test/figures.hpp"
#include "vivit/detail/self_test/golden.hpp"
#include "vivit/detail/self_test/passed.hpp"
#include "vivit/errors.hpp"
#include "vivit/session.hpp"

namespace vivit::detail {

/// What a test's result depends on.
[[nodiscard]] inline std::string key_of(const Session& session, const Place& place, const Bundle& bundle) {
    std::string hashes, limits;
    for (const std::string& file : place.files) hashes += bundle.files().at(file);
    for (const auto& [name, limit] : bundle.limits()) limits += name + "=" + number("%.17g", limit) + ",";
    return key_of({{"engine", sha256_of_bytes(hashes)},
                   {"runs as", session.details()},
                   {"device", place.device.name + " (" + place.device.driver + ")"},
                   {"golden clips", bundle.files().at(golden_name)},
                   {"limits", limits}});
}

/// Run one golden clip, unless the engine was proven on this device, now or when it was built.
///
/// @return what was found, for people
/// @throws DriftError        the result is beyond a limit
/// @throws BundleError       the golden clips are not this model's
/// @throws EnvironmentFault  the engine does not run
[[nodiscard]] inline std::string self_test(const Session& session, const Place& place, const Bundle& bundle) {
    if (!bundle.lists(golden_name)) return "not run: the bundle has no golden clips";
    const bool known = !place.device.name.empty();
    if (place.is_verified) return "not needed: verified on " + place.device.name + " when the engine was built";
    const std::string key = known ? key_of(session, place, bundle) : "";
    if (known && passed_before(key)) return "not needed: passed on this device before";
    Metrics limits = bundle.limits();
    for (const char* of_all_clips : {"top1", "top5", "agreement", "rms", "accuracy_drop"}) limits.erase(of_all_clips);
    const Golden golden = GoldenReader(bundle).read();
    const Metrics figures = measure(golden, session.run(golden.clip), bundle.contract().task, limits);
    const std::string beyond = violations(limits, figures);
    if (!beyond.empty())
        throw DriftError(session.details() + " computes wrongly" +
                         (known ? " on " + place.device.name + " (" + place.device.driver + ")" : "") +
                         ": for the first golden clip of " + bundle.path().string() + ", " + beyond +
                         "; update its driver or library, build the engine again, or choose another one "
                         "(self_test=False opens it anyway)");
    if (known) remember(key);
    std::string passed;
    for (const auto& [name, limit] : limits)
        if (figures.count(name)) passed += (passed.empty() ? "" : ", ") + name + " " + number("%.3g", figures.at(name));
    return "passed: " + passed;
}

}  // namespace vivit::detail
