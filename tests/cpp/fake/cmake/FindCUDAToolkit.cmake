# Stands in for CMake's own module: CUDA::cudart is the GPU made of host memory.
set(CUDAToolkit_FOUND TRUE)
if(NOT TARGET CUDA::cudart)
  add_library(CUDA::cudart INTERFACE IMPORTED)
  set_target_properties(CUDA::cudart PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}/..")
endif()
