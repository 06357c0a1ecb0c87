/* A driver with NUM_DEVICES GPUs of compute capability 9.0; none: CUDA_ERROR_NO_DEVICE (100). */
int cuInit(unsigned flags) { return NUM_DEVICES ? 0 : 100; }
int cuDeviceGetCount(int* count) { *count = NUM_DEVICES; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
