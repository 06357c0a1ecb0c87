// Which engines a program can open. Each back end's header registers the engines that it opens, so that no inline
// function depends on the headers that an object was compiled with. Objects with different components may therefore
// be linked together.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "vivit/backend.hpp"
#include "vivit/bundle.hpp"

namespace vivit::detail {

/// What a back end needs in addition to the bundle.
struct EngineRequest {
    int gpu = 0;                      ///< ordinal; ignored on the CPU
    std::optional<std::string> plan;  ///< this compiled engine of the bundle, or none for any
    int threads = 0;                  ///< on the CPU; 0: the library chooses
};

/// Opens an engine, or throws the reason why that is not possible.
using EngineOpener = std::unique_ptr<Backend> (*)(const Bundle& bundle, const EngineRequest& request);

/// The opener of each engine, in the order of `engine_order`; nullptr if no object of the program has it.
///
/// Initialized at compile time and never destroyed, so code that registers or opens a session before main() begins
/// or after it ends can use it. A shared library with another back end may be loaded while sessions are opened.
inline std::array<std::atomic<EngineOpener>, engine_order.size()> engine_openers{};

/// The position of an engine in `engine_order`, or `engine_order.size()` if there is no such engine.
[[nodiscard]] constexpr std::size_t engine_place(std::string_view engine) noexcept {
    std::size_t place = 0;
    while (place < engine_order.size() && engine != engine_order[place]) ++place;
    return place;
}

/// Let this program open an engine of `engine_order`. Each header does this in the initializer of an inline variable,
/// which runs once per program, before any later initializer of an object that includes the header.
inline bool register_engine(std::string_view engine, EngineOpener open) noexcept {
    engine_openers[engine_place(engine)].store(open);
    return true;
}

}  // namespace vivit::detail
