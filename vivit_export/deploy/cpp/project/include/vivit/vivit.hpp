// ViViT bundles in C++: read and verify a bundle, preprocess clips bit for bit as Hugging Face does, and run them on
// ONNX Runtime, TensorRT or TensorRT for RTX. Written by `vivit deploy cpp BUNDLE DIR`.
#pragma once

#include "vivit/bundle.hpp"
#include "vivit/contract.hpp"
#include "vivit/errors.hpp"
#include "vivit/frames.hpp"
#include "vivit/open.hpp"
#include "vivit/prediction.hpp"
#include "vivit/preprocess.hpp"
#include "vivit/sampling.hpp"
#include "vivit/session.hpp"
#include "vivit/signature.hpp"
#include "vivit/video.hpp"
