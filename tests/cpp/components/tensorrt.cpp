// An object with TensorRT alone, on the GPU made of host memory. It opens a session before main() begins, and nothing
// refers to it.
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <vector>
#include <vivit/vivit.hpp>

static const bool opened_early = [] {
    const vivit::Bundle bundle(std::getenv("VIVIT_TEST_BUNDLE"));
    const auto add = [](const vivit::Tensor& tensor, nvinfer1::TensorIOMode mode, nvinfer1::DataType type) {
        const std::vector<std::int64_t> shape(tensor.clip_shape.begin(), tensor.clip_shape.end());
        fake::trt().tensors.push_back({tensor.name, {mode, type, shape}});
    };
    const vivit::IO& io = bundle.contract().io;
    add(io.input, nvinfer1::TensorIOMode::kINPUT, nvinfer1::DataType::kUINT8);
    for (const vivit::Tensor& output : io.outputs)
        add(output, nvinfer1::TensorIOMode::kOUTPUT, nvinfer1::DataType::kFLOAT);
    std::cout << "before main: " << vivit::open_session(bundle, {"first", ""}).engine() << '\n';
    return true;
}();
