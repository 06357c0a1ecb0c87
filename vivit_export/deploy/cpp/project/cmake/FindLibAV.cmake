# LibAV::LibAV: the libraries of FFmpeg that read a video.
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(LibAV QUIET IMPORTED_TARGET libavformat libavcodec libswscale libavutil)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibAV REQUIRED_VARS LibAV_LIBRARIES
  REASON_FAILURE_MESSAGE "install pkg-config and the development files of libavformat, libavcodec, libswscale and libavutil")
if(LibAV_FOUND AND NOT TARGET LibAV::LibAV)
  add_library(LibAV::LibAV INTERFACE IMPORTED)
  set_target_properties(LibAV::LibAV PROPERTIES INTERFACE_LINK_LIBRARIES PkgConfig::LibAV)
endif()
