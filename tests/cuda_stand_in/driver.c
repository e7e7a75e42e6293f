/* Stands in for libcuda.so.1, through which Triton loads and launches its kernels. See runtime.c. */
#include <stdlib.h>
#include <string.h>

#include "device.h"

static long launches;
long stand_in_driver_launches(void) { return launches; }

static void *handle(void) { return calloc(1, 4096); }
static void *context(void) {
  static void *only;
  return only ? only : (only = handle());
}

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, DEVICE_NAME, size); return 0; }
int cuDeviceGetAttribute(int *value, int name, int device) { *value = attribute(name); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = DEVICE_MEMORY; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int device) { *c = context(); return 0; }
int cuCtxGetCurrent(void **c) { *c = context(); return 0; }
int cuCtxSetCurrent(void *c) { return 0; }
int cuCtxGetDevice(int *device) { *device = 0; return 0; }
int cuCtxGetLimit(size_t *value, int limit) { *value = 1024; return 0; }
int cuCtxSetLimit(int limit, size_t value) { return 0; }
int cuModuleLoad(void **module, const char *file) { *module = handle(); return 0; }
int cuModuleLoadData(void **module, const void *image) { *module = handle(); return 0; }
int cuModuleLoadDataEx(void **module, const void *image, unsigned n, void *options, void *values) { *module = handle(); return 0; }
int cuModuleUnload(void *module) { return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) { *function = strdup(name); return 0; }
int cuFuncGetAttribute(int *value, int name, void *function) { *value = name == 0 ? 1024 : name == 4 ? 64 : 0; return 0; } /* threads, registers */
int cuFuncSetAttribute(void *function, int name, int value) { return 0; }
int cuFuncSetCacheConfig(void *function, int config) { return 0; }
int cuLaunchKernel(void) { launches++; return 0; }
int cuLaunchKernelEx(void) { launches++; return 0; }
int cuLaunchCooperativeKernel(void) { launches++; return 0; }
int cuOccupancyMaxActiveClusters(int *clusters, void *function, void *config) { *clusters = 132; return 0; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) { *blocks = 2; return 0; }
int cuTensorMapEncodeTiled(void) { return 0; }
int cuPointerGetAttribute(void *value, int name, unsigned long long pointer) { *(unsigned long long *)value = pointer; return 0; }
int cuGetErrorName(int error, const char **text) { *text = "stand-in"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "an error of the CUDA stand-in"; return 0; }
