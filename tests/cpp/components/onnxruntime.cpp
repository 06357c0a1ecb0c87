// An object with ONNX Runtime alone. It opens a session before main() begins, and nothing refers to it.
#include <cstdlib>
#include <iostream>
#include <vivit/vivit.hpp>

static const bool opened_early = [] {
    const vivit::Bundle bundle(std::getenv("VIVIT_TEST_BUNDLE"));
    std::cout << "before main: " << vivit::open_session(bundle, {"onnxruntime", ""}).engine() << '\n';
    return true;
}();
