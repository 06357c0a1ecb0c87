# find_package(vivit COMPONENTS onnxruntime tensorrt libav): vivit::vivit, and one target for each component that was
# switched on when this package was installed. ONNXRUNTIME_ROOT and TENSORRT_ROOT say where those libraries are.
include(CMakeFindDependencyMacro)
list(PREPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")

find_dependency(nlohmann_json 3.9)
find_dependency(OpenSSL COMPONENTS Crypto)
find_dependency(Threads)
include("${CMAKE_CURRENT_LIST_DIR}/vivit-core.cmake")

set(_vivit_package_onnxruntime ONNXRuntime)
set(_vivit_package_tensorrt TensorRT)
set(_vivit_package_libav LibAV)
foreach(_vivit_component IN LISTS vivit_FIND_COMPONENTS)
  if(EXISTS "${CMAKE_CURRENT_LIST_DIR}/vivit-${_vivit_component}.cmake")
    find_dependency(${_vivit_package_${_vivit_component}})
    include("${CMAKE_CURRENT_LIST_DIR}/vivit-${_vivit_component}.cmake")
    set(vivit_${_vivit_component}_FOUND TRUE)
  elseif(vivit_FIND_REQUIRED_${_vivit_component})
    set(vivit_FOUND FALSE)
    set(vivit_NOT_FOUND_MESSAGE "vivit was installed without its component ${_vivit_component}")
  endif()
endforeach()
list(REMOVE_ITEM CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")
