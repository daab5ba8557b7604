// A device that is not there: as much of the CUDA runtime and driver as torch's allocator calls (libc10_cuda.so).
//
// Memory is counted in pages of 2 MiB, and an address is the lowest that is free. Nothing is stored anywhere.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string_view>

namespace {

constexpr std::uint64_t kPage = 2ull << 20;
constexpr std::uint64_t kFirst = 0x7F0000000000ull;

std::uint64_t number(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

std::uint64_t paged(std::uint64_t size) { return (size + kPage - 1) / kPage * kPage; }

std::uint64_t total() { static auto bytes = number("DEVICE_TOTAL", 80ull << 30); return bytes; }

std::uint64_t taken = number("DEVICE_OUTSIDE", 0);
std::map<std::uint64_t, std::uint64_t> ranges;   // address -> size, of what is given out
std::map<std::uint64_t, std::uint64_t> handles;  // physical memory
std::uint64_t next_handle = 1;

std::uint64_t place(std::uint64_t size) {
  std::uint64_t at = kFirst;
  for (auto [address, length] : ranges) {
    if (at + size <= address) break;
    at = address + length;
  }
  ranges[at] = size;
  return at;
}

CUresult reserve(CUdeviceptr* out, size_t size, size_t, CUdeviceptr, unsigned long long) {
  *out = place(size);
  return CUDA_SUCCESS;
}
CUresult unreserve(CUdeviceptr at, size_t) { ranges.erase(at); return CUDA_SUCCESS; }
CUresult create(CUmemGenericAllocationHandle* out, size_t size, const CUmemAllocationProp*, unsigned long long) {
  if (taken + size > total()) return CUDA_ERROR_OUT_OF_MEMORY;
  taken += size;
  handles[*out = next_handle++] = size;
  return CUDA_SUCCESS;
}
CUresult release(CUmemGenericAllocationHandle handle) {
  taken -= handles[handle];
  handles.erase(handle);
  return CUDA_SUCCESS;
}
CUresult attribute(int* out, CUdevice_attribute, CUdevice) { *out = 0; return CUDA_SUCCESS; }
CUresult text(CUresult, const char** out) { *out = "a device that is not there"; return CUDA_SUCCESS; }
CUresult nothing() { return CUDA_SUCCESS; }

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** out, size_t size) {
  if (taken + paged(size) > total()) return cudaErrorMemoryAllocation;
  taken += paged(size);
  *out = reinterpret_cast<void*>(place(paged(size)));
  return cudaSuccess;
}
cudaError_t cudaFree(void* address) {
  auto at = ranges.find(reinterpret_cast<std::uint64_t>(address));
  if (at != ranges.end()) {
    taken -= at->second;
    ranges.erase(at);
  }
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* all) {
  *free = total() - taken;
  *all = total();
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::memset(properties, 0, sizeof *properties);
  properties->totalGlobalMem = total();
  properties->major = 9;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "error"; }
const char* cudaGetErrorString(cudaError_t) { return "error"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, enum cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(
    const char* name, void** out, unsigned int, unsigned long long, enum cudaDriverEntryPointQueryResult* result) {
  const std::map<std::string_view, void*> known{
      {"cuMemAddressReserve", reinterpret_cast<void*>(reserve)},
      {"cuMemAddressFree", reinterpret_cast<void*>(unreserve)},
      {"cuMemCreate", reinterpret_cast<void*>(create)},
      {"cuMemRelease", reinterpret_cast<void*>(release)},
      {"cuDeviceGetAttribute", reinterpret_cast<void*>(attribute)},
      {"cuGetErrorString", reinterpret_cast<void*>(text)},
  };
  auto found = known.find(name);
  *out = found == known.end() ? reinterpret_cast<void*>(nothing) : found->second;
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

}

// Of NVML: who takes what of the device, as the message of an error tells it.
extern "C" {
struct Process { unsigned int pid; unsigned long long bytes; };
int nvmlInit_v2() { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char*, void** device) { *device = nullptr; return 0; }
int nvmlDeviceGetGpuFabricInfoV(void*, void*) { return 3; }  // NVML_ERROR_NOT_SUPPORTED
int nvmlDeviceGetComputeRunningProcesses(void*, unsigned int* count, Process* processes) {
  if (*count < 1) return 7;  // NVML_ERROR_INSUFFICIENT_SIZE
  *count = 1;
  processes[0] = {static_cast<unsigned int>(getpid()), taken};
  return 0;
}
}

// What the library names and these programs do not need an answer of.
#define STAND_IN(name) extern "C" int stand_in_##name() asm(#name); int stand_in_##name() { return 0; }
STAND_IN(cudaDeviceCanAccessPeer)
STAND_IN(cudaDeviceEnablePeerAccess)
STAND_IN(cudaDeviceGetDefaultMemPool)
STAND_IN(cudaDeviceGetStreamPriorityRange)
STAND_IN(cudaDeviceSynchronize)
STAND_IN(cudaEventCreateWithFlags)
STAND_IN(cudaEventDestroy)
STAND_IN(cudaEventElapsedTime)
STAND_IN(cudaEventQuery)
STAND_IN(cudaEventRecord)
STAND_IN(cudaEventSynchronize)
STAND_IN(cudaFreeAsync)
STAND_IN(cudaGraphNodeGetDependencies)
STAND_IN(cudaIpcCloseMemHandle)
STAND_IN(cudaIpcGetMemHandle)
STAND_IN(cudaIpcOpenMemHandle)
STAND_IN(cudaMallocAsync)
STAND_IN(cudaMemPoolGetAttribute)
STAND_IN(cudaMemPoolSetAccess)
STAND_IN(cudaMemPoolSetAttribute)
STAND_IN(cudaMemPoolTrimTo)
STAND_IN(cudaMemcpy)
STAND_IN(cudaMemcpyAsync)
STAND_IN(cudaMemcpyPeerAsync)
STAND_IN(cudaStreamCreateWithPriority)
STAND_IN(cudaStreamGetCaptureInfo)
STAND_IN(cudaStreamQuery)
STAND_IN(cudaStreamSynchronize)
STAND_IN(cudaStreamWaitEvent)
STAND_IN(nvmlDeviceGetNvLinkRemoteDeviceType)
STAND_IN(nvmlDeviceGetNvLinkRemotePciInfo_v2)
STAND_IN(nvmlSystemGetCudaDriverVersion_v2)
