# TensorRT::TensorRT, from TENSORRT_ROOT (an unpacked TensorRT or TensorRT for RTX) or the usual places. The headers
# decide which of the two it is; the library must be of the same kind.
find_path(TensorRT_INCLUDE_DIR NvInfer.h HINTS "${TENSORRT_ROOT}" PATH_SUFFIXES include)
find_library(TensorRT_LIBRARY NAMES nvinfer tensorrt_rtx HINTS "${TENSORRT_ROOT}" PATH_SUFFIXES lib lib64)
mark_as_advanced(TensorRT_INCLUDE_DIR TensorRT_LIBRARY)
find_package(CUDAToolkit QUIET)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorRT REQUIRED_VARS TensorRT_LIBRARY TensorRT_INCLUDE_DIR CUDAToolkit_FOUND
  REASON_FAILURE_MESSAGE "unpack TensorRT and pass its folder as -DTENSORRT_ROOT (it also needs the CUDA toolkit)")
if(TensorRT_FOUND AND NOT TARGET TensorRT::TensorRT)
  add_library(TensorRT::TensorRT UNKNOWN IMPORTED)
  set_target_properties(TensorRT::TensorRT PROPERTIES
    IMPORTED_LOCATION "${TensorRT_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${TensorRT_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES CUDA::cudart)
endif()
