/* All that tensorrt_bindings 10.3 to 11.4 need of libnvinfer, libnvonnxparser and libnvinfer_plugin to be
   imported: nine C functions, everything else is a virtual call. Each returns null, as the real
   ones do where there is no GPU. */
void* createInferBuilder_INTERNAL(void) { return 0; }
void* createInferRefitter_INTERNAL(void) { return 0; }
void* createInferRuntime_INTERNAL(void) { return 0; }
void* createNvOnnxParser_INTERNAL(void) { return 0; }
void* createNvOnnxParserRefitter_INTERNAL(void) { return 0; }
void* getBuilderPluginRegistry(void) { return 0; }
void* getPluginRegistry(void) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void) { return 0; }
