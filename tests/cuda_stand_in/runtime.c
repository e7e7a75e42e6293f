/* Stands in for CUDA's runtime library where there is no GPU: PyTorch's CUDA build then believes in one H100.
 *
 * Memory is the host's, copies are real, kernels are counted and not run: every tensor that a kernel should have written
 * holds zeros or what was there before. So nothing here tells of numbers, and everything that happens on the host is the
 * real thing: devices of tensors, graphs and their breaks, kernels compiled for sm_90 down to machine code, captured
 * CUDA graphs and what outlives them, launches, synchronizations, allocations.
 *
 * What `build.py` finds undefined in PyTorch's libraries and does not find here returns 0 (success). */
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "device.h"

#define OK cudaSuccess
typedef cudaStream_t Stream;

static void *handle(void) { return calloc(1, 4096); }

/* Counters, read through ctypes. */
static long launches, synchronizations, copies_to_host, captures, replays;
long stand_in_launches(void) { return launches; }
long stand_in_synchronizations(void) { return synchronizations; }
long stand_in_copies_to_host(void) { return copies_to_host; }
long stand_in_captures(void) { return captures; }
long stand_in_replays(void) { return replays; }

/* The device. */
cudaError_t cudaGetDeviceCount(int *count) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    *count = !visible || *visible;
    return *count ? OK : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int *device) { *device = 0; return OK; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return OK; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return OK; }
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr name, int device) { *value = attribute(name); return OK; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return OK; }
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device) { strncpy(text, "0000:00:00.0", size); return OK; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return OK; }
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device) { *pool = handle(); return OK; }
cudaError_t cudaDeviceSynchronize(void) { synchronizations++; return OK; }
#undef cudaGetDeviceProperties
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, DEVICE_NAME);
  p->major = attribute(cudaDevAttrComputeCapabilityMajor);
  p->minor = attribute(cudaDevAttrComputeCapabilityMinor);
  p->totalGlobalMem = DEVICE_MEMORY;
  p->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount);
  p->warpSize = attribute(cudaDevAttrWarpSize);
  p->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
  p->maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  p->maxBlocksPerMultiProcessor = attribute(cudaDevAttrMaxBlocksPerMultiprocessor);
  p->regsPerBlock = p->regsPerMultiprocessor = attribute(cudaDevAttrMaxRegistersPerMultiprocessor);
  p->sharedMemPerBlock = attribute(cudaDevAttrMaxSharedMemoryPerBlock);
  p->sharedMemPerBlockOptin = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  p->sharedMemPerMultiprocessor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  p->l2CacheSize = attribute(cudaDevAttrL2CacheSize);
  p->memoryBusWidth = attribute(cudaDevAttrGlobalMemoryBusWidth);
  p->maxGridSize[0] = attribute(cudaDevAttrMaxGridDimX);
  p->maxGridSize[1] = p->maxGridSize[2] = attribute(cudaDevAttrMaxGridDimY);
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = attribute(cudaDevAttrMaxBlockDimX);
  p->maxThreadsDim[2] = attribute(cudaDevAttrMaxBlockDimZ);
  return OK;
}

/* Memory. */
static cudaError_t take(void **p, size_t n) { return posix_memalign(p, 4096, n ? n : 1) ? cudaErrorMemoryAllocation : OK; }
cudaError_t cudaMalloc(void **p, size_t n) {
  if (take(p, n)) return cudaErrorMemoryAllocation;
  memset(*p, 0, n);
  return OK;
}
cudaError_t cudaMallocAsync(void **p, size_t n, Stream s) { return cudaMalloc(p, n); }
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned flags) { return take(p, n); }
cudaError_t cudaFree(void *p) { free(p); return OK; }
cudaError_t cudaFreeAsync(void *p, Stream s) { free(p); return OK; }
cudaError_t cudaFreeHost(void *p) { free(p); return OK; }
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = DEVICE_MEMORY; return OK; }
static cudaError_t copy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind) {
  if (kind != cudaMemcpyDeviceToDevice) memmove(to, from, n); /* as good as a kernel otherwise: not done */
  return OK;
}
/* One on a stream is waited for by a synchronization, or not at all. */
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind) {
  copies_to_host += kind == cudaMemcpyDeviceToHost;
  return copy(to, from, n, kind);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind, Stream s) { return copy(to, from, n, kind); }
cudaError_t cudaMemset(void *p, int value, size_t n) { memset(p, value, n); return OK; }
cudaError_t cudaMemsetAsync(void *p, int value, size_t n, Stream s) { memset(p, value, n); return OK; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
  memset(a, 0, sizeof *a);
  a->type = cudaMemoryTypeUnregistered;
  return OK;
}

/* Kernels: counted. */
cudaError_t cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **args, size_t shared, Stream s) { launches++; return OK; }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *f, void **args) { launches++; return OK; }
cudaError_t cudaLaunchCooperativeKernel(const void *f, dim3 grid, dim3 block, void **args, size_t shared, Stream s) { launches++; return OK; }
cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 grid, dim3 block, void **args, size_t shared, Stream s) { launches++; return OK; }
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *f) { *kernel = (cudaKernel_t)f; return OK; }
cudaError_t cudaGetSymbolAddress(void **p, const void *symbol) { *p = handle(); return OK; }
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 64;
  a->binaryVersion = a->ptxVersion = 90;
  return OK;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *f, int threads, size_t shared) { *blocks = 2; return OK; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *f, int threads, size_t shared, unsigned flags) { *blocks = 2; return OK; }

/* Streams, events, and the capture of one stream into a graph. */
static Stream captured;
static int capturing;
static enum cudaStreamCaptureStatus status_of(Stream s) {
  return capturing && s == captured ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
}
cudaError_t cudaStreamCreate(Stream *s) { *s = handle(); return OK; }
cudaError_t cudaStreamCreateWithFlags(Stream *s, unsigned flags) { *s = handle(); return OK; }
cudaError_t cudaStreamCreateWithPriority(Stream *s, unsigned flags, int priority) { *s = handle(); return OK; }
cudaError_t cudaStreamGetPriority(Stream s, int *priority) { *priority = 0; return OK; }
cudaError_t cudaStreamSynchronize(Stream s) { synchronizations++; return OK; }
cudaError_t cudaStreamIsCapturing(Stream s, enum cudaStreamCaptureStatus *status) { *status = status_of(s); return OK; }
cudaError_t cudaStreamBeginCapture(Stream s, enum cudaStreamCaptureMode mode) { capturing = 1; captured = s; captures++; return OK; }
cudaError_t cudaStreamEndCapture(Stream s, cudaGraph_t *graph) { capturing = 0; *graph = handle(); return OK; }
#undef cudaStreamGetCaptureInfo
cudaError_t cudaStreamGetCaptureInfo(Stream s, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *count) {
  *status = status_of(s);
  if (id) *id = captures;
  if (graph) *graph = handle();
  if (count) *count = 0;
  return OK;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *ready, cudaGraph_t graph, unsigned long long flags) { *ready = handle(); return OK; }
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) { *count = 1; return OK; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, Stream s) { replays++; return OK; }
static double milliseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { *e = handle(); return OK; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) { *e = handle(); return OK; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { free(e); return OK; }
cudaError_t cudaEventRecord(cudaEvent_t e, Stream s) { *(double *)e = milliseconds(); return OK; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, Stream s, unsigned flags) { return cudaEventRecord(e, s); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) { *ms = *(double *)to - *(double *)from; return OK; }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { synchronizations++; return OK; }

/* Errors, and the way to the driver. */
const char *cudaGetErrorName(cudaError_t e) { return "stand-in"; }
const char *cudaGetErrorString(cudaError_t e) { return "an error of the CUDA stand-in"; }
static int nothing(void) { return 0; }
#undef cudaGetDriverEntryPointByVersion
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
  void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL), *found = driver ? dlsym(driver, name) : NULL;
  *function = found ? found : (void *)nothing;
  if (result) *result = cudaDriverEntryPointSuccess;
  return OK;
}

/* Libraries that are asked for a thing before they are used. */
int cublasCreate_v2(void **h) { *h = handle(); return 0; }
int cublasLtMatmulAlgoGetHeuristic(void *h, void *op, void *a, void *b, void *c, void *d, void *preference, int wanted, void *results, int *found) {
  *found = 1;
  return 0;
}
int ncclGetVersion(int *version) { *version = 22807; return 0; }
int ncclCommCount(void *c, int *count) { *count = 1; return 0; }
int ncclCommUserRank(void *c, int *rank) { *rank = 0; return 0; }
int ncclCommGetAsyncError(void *c, int *error) { *error = 0; return 0; }
int ncclCommInitRank(void **c) { *c = handle(); return 0; }
int ncclCommInitRankConfig(void **c) { *c = handle(); return 0; }
int ncclCommInitRankScalable(void **c) { *c = handle(); return 0; }
int ncclCommSplit(void *c, int color, int key, void **new) { *new = handle(); return 0; }
const char *ncclGetErrorString(int e) { return "an error of the CUDA stand-in"; }
const char *ncclGetLastError(void *c) { return ""; }
