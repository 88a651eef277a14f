// Runs the text of the CUDA kernels on the CPU: the names of device.cuh, and what a GPU does around them.
//
// Each thread of a block is a fiber. A barrier or shuffle hands over to the next one; a warp runs as far as it can
// before another does, which is the greatest skew that a GPU may show. What is wrong is an error with a message:
// an access outside of every buffer, a misaligned one, a barrier or shuffle that not all threads reach, two threads
// at the same shared word with nothing between them. Blocks run one after the other.
#pragma once
#define EMULATED
#include <ucontext.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
#define DEVICE inline __attribute__((always_inline))
#define KERNEL(threads, resident) extern "C" void

namespace emulator {
struct Buffer {
  u64 begin, size;
};
struct Launch {  // filled in by launcher.py
  int blocks, threads, order, poison, seed, traced, flush, buffers;
  const Buffer* buffer;
};
struct Report {
  i64 loaded, stored, load_sectors, store_sectors;
  char error[256];
};

enum State { READY, AT_BARRIER, AT_SHUFFLE, LEFT };
struct Access {
  u32 meeting = 0, exchange = 0;  // counts of the block's barriers and of the warp's shuffles, from 1
  int thread = -1;
  bool others = false;            // threads of other warps, too
};
struct Granule {  // two bytes of shared memory
  Access write, read;
};
struct Thread {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  ucontext_t context;
  State state = LEFT;
  size_t shared_used = 0;
  std::map<const void*, int> passes;  // how often this thread passed a place in the code
};
struct Warp {
  u64 given[2][32];
  int arrived = 0, what = 0;
  u32 exchange = 1;
};
struct Block {
  const Launch* launch;
  Report* report;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  std::vector<Granule> granules;
  std::map<std::tuple<int, const void*, int, bool>, std::set<u64>> sectors;
  void (*body)(void*);
  void* argument;
  void* main_stack;
  ucontext_t main_context;
  int current = 0, here = 0, waiting = 0, number = 0;
  u32 meeting = 1;
  bool failed = false;
};
inline Block block;

// ---- fibers: eight instructions where the machine is known, else the C library

#if defined(__x86_64__) && !defined(PORTABLE_FIBERS)
extern "C" void emulator_switch(void** save, void* to);
asm(R"(.text
.weak emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");
inline void to_scheduler() { emulator_switch(&block.threads[block.current].stack_pointer, block.main_stack); }
inline void to_thread(int i) {
  block.current = i;
  emulator_switch(&block.main_stack, block.threads[i].stack_pointer);
}
#else
inline void to_scheduler() { swapcontext(&block.threads[block.current].context, &block.main_context); }
inline void to_thread(int i) {
  block.current = i;
  swapcontext(&block.main_context, &block.threads[i].context);
}
#endif

inline void run_thread() {
  block.body(block.argument);
  block.threads[block.current].state = LEFT;
  --block.here;
  for (;;) to_scheduler();
}

const size_t STACK_BYTES = 256 << 10;
inline void prepare(Thread& thread) {
  if (!thread.stack) thread.stack = (char*)malloc(STACK_BYTES);
  thread.state = READY;
  thread.shared_used = 0;
  thread.passes.clear();
#if defined(__x86_64__) && !defined(PORTABLE_FIBERS)
  void** top = (void**)(((u64)thread.stack + STACK_BYTES - 64) & ~15ull);
  *--top = nullptr;
  *--top = (void*)&run_thread;
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  thread.stack_pointer = top;
#else
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = thread.stack;
  thread.context.uc_stack.ss_size = STACK_BYTES;
  thread.context.uc_link = nullptr;
  makecontext(&thread.context, run_thread, 0);
#endif
}

inline void fail(const char* format, int a = 0, int b = 0) {
  if (!block.failed) snprintf(block.report->error, sizeof block.report->error, format, a, b);
  block.failed = true;
  to_scheduler();
}

// ---- barriers and shuffles

inline void meet() {
  block.threads[block.current].state = AT_BARRIER;
  if (++block.waiting < (int)block.threads.size()) return to_scheduler();
  block.waiting = 0;
  ++block.meeting;
  for (Thread& thread : block.threads) thread.state = READY;
}

template <typename T> T exchange(T value, int source, int what) {
  static_assert(sizeof(T) <= 8, "a shuffle moves 8 bytes at most");
  const int me = block.current, lane = me % 32, first = me - lane;
  Warp& warp = block.warps[me / 32];
  const u32 now = warp.exchange;
  if (warp.arrived == 0) warp.what = what;
  if (warp.what != what) fail("threads of warp %d are at different shuffles", me / 32);
  memcpy(&warp.given[now % 2][lane], &value, sizeof value);
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    ++warp.exchange;
    for (int i = first; i < first + 32; ++i)
      if (block.threads[i].state == AT_SHUFFLE) block.threads[i].state = READY;
  } else {
    block.threads[me].state = AT_SHUFFLE;
    to_scheduler();
  }
  T found;
  memcpy(&found, &warp.given[now % 2][source], sizeof found);
  return found;
}

// ---- shared memory: who was there last, and whether anything lay between

inline void* shared_memory(size_t bytes) {
  Thread& me = block.threads[block.current];
  const size_t at = me.shared_used;
  me.shared_used += (bytes + 15) / 16 * 16;
  if (me.shared_used > block.shared.size()) fail("more than %d bytes of shared memory", (int)block.shared.size());
  return block.shared.data() + at;
}
inline bool ordered(const Access& before) {
  const int me = block.current;
  if (before.thread < 0 || before.meeting < block.meeting) return true;
  if (before.others) return false;
  return before.thread == me || (before.thread / 32 == me / 32 && before.exchange < block.warps[me / 32].exchange);
}
inline void visit(const void* p, size_t bytes, bool writes) {
  const size_t at = (const unsigned char*)p - block.shared.data();
  if (at + bytes > block.shared.size()) fail("shared memory: outside, at %d", (int)at);
  if ((u64)p % (bytes > 16 ? 8 : bytes)) fail("shared memory: a misaligned access of %d bytes", (int)bytes);
  const Access now = {block.meeting, block.warps[block.current / 32].exchange, block.current, false};
  for (size_t i = at / 2; i < (at + bytes + 1) / 2; ++i) {
    Granule& granule = block.granules[i];
    if (!ordered(granule.write) || (writes && !ordered(granule.read)))
      fail("race: threads %d and %d at the same shared memory", writes && ordered(granule.write) ? granule.read.thread : granule.write.thread, block.current);
    Access& last = writes ? granule.write : granule.read;
    const bool others = !writes && last.meeting == now.meeting && last.thread >= 0 &&
                        (last.others || last.thread / 32 != now.thread / 32);
    last = now;
    last.others = others;
  }
}

// ---- global memory

inline bool inside(u64 p, u64 bytes, u64 slack) {
  for (int i = 0; i < block.launch->buffers; ++i) {
    const Buffer& b = block.launch->buffer[i];
    // A load of 16 aligned bytes may reach beyond an end: no page ends there.
    if (p >= (b.begin & ~(slack - 1)) && p + bytes <= ((b.begin + b.size + slack - 1) & ~(slack - 1))) return true;
  }
  return false;
}
__attribute__((noinline)) inline void touch(const void* p, u64 bytes, bool writes) {
  if ((u64)p % bytes) fail("global memory: a misaligned access of %d bytes", (int)bytes);
  if (!inside((u64)p, bytes, bytes == 16 && !writes ? 16 : 1))
    fail(writes ? "global memory: a store outside of every buffer" : "global memory: a load outside of every buffer");
  (writes ? block.report->stored : block.report->loaded) += bytes;
  if (!block.launch->traced) return;
  const void* place = __builtin_return_address(0);
  const int pass = block.threads[block.current].passes[place]++;
  std::set<u64>& found = block.sectors[{block.current / 32, place, pass, writes}];
  for (u64 sector = (u64)p / 32; sector <= ((u64)p + bytes - 1) / 32; ++sector) found.insert(sector);
}

// ---- a launch

inline void run_block(std::mt19937& random) {
  const Launch& launch = *block.launch;
  const int n = launch.threads;
  std::vector<int> warps(n / 32), lanes(32);
  for (int i = 0; i < n / 32; ++i) warps[i] = launch.order == 1 ? n / 32 - 1 - i : i;
  for (int i = 0; i < 32; ++i) lanes[i] = launch.order == 1 ? 31 - i : i;
  while (block.here > 0 && !block.failed) {
    if (launch.order == 2) {
      std::shuffle(warps.begin(), warps.end(), random);
      std::shuffle(lanes.begin(), lanes.end(), random);
    }
    bool moved = false;
    for (int warp : warps)
      for (bool again = true; again && !block.failed;) {
        again = false;
        for (int lane : lanes) {
          const int i = warp * 32 + lane;
          if (block.threads[i].state != READY) continue;
          again = moved = true;
          to_thread(i);
          if (block.failed) return;
        }
      }
    if (!moved) {
      int barrier = 0, shuffle = 0;
      for (const Thread& thread : block.threads)
        barrier += thread.state == AT_BARRIER, shuffle += thread.state == AT_SHUFFLE;
      snprintf(block.report->error, sizeof block.report->error,
               "deadlock: %d threads at a barrier, %d at a shuffle, %d have left", barrier, shuffle, n - block.here);
      block.failed = true;
    }
  }
}

inline void run(const Launch* launch, Report* report, void (*body)(void*), void* argument) {
  const u32 before = _mm_getcsr();
  block.launch = launch, block.report = report, block.body = body, block.argument = argument;
  block.threads.resize(launch->threads);
  block.failed = false;
  std::mt19937 random(launch->seed);
  _mm_setcsr(launch->flush ? before | 0x8040 : before);  // subnormal float32 is 0, as CuPy has it compiled
  for (block.number = 0; block.number < launch->blocks && !block.failed; ++block.number) {
    block.shared.assign(48 << 10, (unsigned char)launch->poison);
    block.granules.assign(24 << 10, Granule());
    block.warps.assign(launch->threads / 32, Warp());
    block.sectors.clear();
    block.here = launch->threads, block.waiting = 0, block.meeting = 1;
    for (Thread& thread : block.threads) prepare(thread);
    run_block(random);
    for (const auto& access : block.sectors)
      (std::get<3>(access.first) ? report->store_sectors : report->load_sectors) += access.second.size();
  }
  _mm_setcsr(before);
}

template <typename... A, size_t... I> void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*(std::remove_const_t<A>*)arguments[I]...);
}
template <typename... A> void call(void (*kernel)(A...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<A...>());
}

}  // namespace emulator

#define EMULATE(name)                                                                                       \
  extern "C" void emulate_##name(void** arguments, const emulator::Launch* launch, emulator::Report* report) { \
    emulator::run(launch, report, [](void* a) { emulator::call(&name, (void**)a); }, arguments);            \
  }
#define SHARED(type, name, count) type* const name = (type*)emulator::shared_memory(sizeof(type) * (count))

DEVICE int thread() { return emulator::block.current; }
DEVICE int block() { return emulator::block.number; }
DEVICE int blocks() { return emulator::block.launch->blocks; }
struct alignas(16) Word4 { u32 w[4]; };
struct alignas(8) Word2 { u32 w[2]; };
template <typename T> DEVICE T load(const T* p) {
  emulator::touch(p, sizeof(T), false);
  return *p;
}
template <typename T> DEVICE void store(T* p, T v) {
  emulator::touch(p, sizeof(T), true);
  memcpy(p, &v, sizeof v);
}
template <bool LAST> DEVICE Word4 load16(const void* p) { return load((const Word4*)p); }
template <bool ASIDE> DEVICE void store16(void* p, Word4 v) { store((Word4*)p, v); }
template <bool ASIDE> DEVICE void store8(void* p, Word2 v) { store((Word2*)p, v); }

template <typename T> DEVICE T get(const T* shared) {
  emulator::visit(shared, sizeof(T), false);
  T v;
  memcpy(&v, shared, sizeof v);
  return v;
}
template <typename T> DEVICE void put(T* shared, T v) {
  emulator::visit(shared, sizeof(T), true);
  memcpy(shared, &v, sizeof v);
}
DEVICE void meet() { emulator::meet(); }
template <typename T> DEVICE T from_lane_xor(T v, int bits) {
  return emulator::exchange(v, (emulator::block.current % 32) ^ bits, 64 * bits + (int)sizeof(T));
}
template <typename T> DEVICE T from_lane(T v, int lane) { return emulator::exchange(v, lane, (int)sizeof(T)); }

template <typename To, typename From> DEVICE To same_bits(From x) {
  To y;
  static_assert(sizeof x == sizeof y, "");
  memcpy(&y, &x, sizeof y);
  return y;
}
DEVICE u32 bits_of(float x) { return same_bits<u32>(x); }
DEVICE float float_of(u32 bits) { return same_bits<float>(bits); }
DEVICE u64 bits_of(double x) { return same_bits<u64>(x); }
DEVICE double double_of(u64 bits) { return same_bits<double>(bits); }
DEVICE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }

// By integers, so that flushing subnormal numbers to 0 does not touch them.
DEVICE bool is_nan(float x) { return (bits_of(x) & 0x7fffffffu) > 0x7f800000u; }
DEVICE int key_of(float x) { return bits_of(x) >> 31 ? -(int)(bits_of(x) & 0x7fffffffu) : (int)bits_of(x); }
DEVICE bool same(float a, float b) { return !is_nan(a) && !is_nan(b) && key_of(a) == key_of(b); }
DEVICE bool above(float a, float b) { return !is_nan(a) && !is_nan(b) && key_of(a) > key_of(b); }
DEVICE float larger(float a, float b) { return is_nan(a) || above(b, a) ? b : a; }
DEVICE double larger(double a, double b) { return __builtin_fmax(a, b); }
template <typename A> DEVICE A at_least(A x, A low) { return x < low ? low : x; }
DEVICE bool same(double a, double b) { return a == b; }
DEVICE bool above(double a, double b) { return a > b; }

// The fast unit, as wrong as its manual allows: 2^-22.5, in a direction that hangs on the argument.
DEVICE float exp2_approximately(float x) {
  const double off = bits_of(x) * 2654435761u >> 31 ? 1.686e-7 : -1.686e-7;
  return x == 0 ? 1.0f : (float)(__builtin_exp2f(x) * (1 + off));
}
DEVICE float from_half(u16 bits) { return (float)same_bits<_Float16>(bits); }
DEVICE u16 to_half(float x) { return same_bits<u16>((_Float16)x); }
DEVICE u32 funnel(u32 low, u32 high, int bits) { return (u32)((((u64)high << 32) | low) >> bits); }
