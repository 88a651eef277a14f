// The threads that share a row. Every one of them gets every result, and always the same bits.
const int NONE = 0x7fffffff;
const int BLOCK = 128;  // threads of a block, but of a block-wide row

template <int MEMBERS> DEVICE int member_of() { return thread() % MEMBERS; }  // of the threads that share a row
template <int MEMBERS> DEVICE int row_of_block() { return thread() / MEMBERS; }

struct Largest {
  static const bool LOWEST = false;
  template <typename A> DEVICE static A of(A a, A b) { return larger(a, b); }
};
struct Lowest {
  static const bool LOWEST = true;
  DEVICE static int of(int a, int b) { return a < b ? a : b; }
};
struct Added {
  static const bool LOWEST = false;
  template <typename A> DEVICE static A of(A a, A b) { return a + b; }
};

// A value is first combined within a warp; a group of several warps then posts it on a board, meets, and reads.
// Posts between two meetings need slots of their own, and a slot is free again after the next meeting.
const int MOST_WARPS = 16, SLOTS = 7;

template <int THREADS> struct Group {
  static const int WARPS = THREADS / 32;
  double* board;  // SLOTS * MOST_WARPS

  DEVICE int member() const { return member_of<THREADS>(); }

  template <typename Op, typename A> DEVICE A within_warp(A v) const {
#pragma unroll
    for (int bit = (THREADS < 32 ? THREADS : 32) / 2; bit; bit >>= 1) v = Op::of(v, from_lane_xor(v, bit));
    return v;
  }
#ifdef WARP_LOWEST
  template <typename Op> DEVICE int within_warp(int v) const {
    if constexpr (THREADS >= 32 && Op::LOWEST) return lowest_of_warp(v);
    return within_warp<Op, int>(v);
  }
#endif
  template <typename A> DEVICE void post(int slot, A v) const {
    if (WARPS > 1 && member() % 32 == 0) put(board + slot * MOST_WARPS + member() / 32, (double)v);
  }
  DEVICE void gather() const {
    if (WARPS > 1) meet();
  }
  template <typename Op, typename A> DEVICE A read(int slot, A own) const {
    if (WARPS < 2) return own;
    A v = (A)get(board + slot * MOST_WARPS);
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) v = Op::of(v, (A)get(board + slot * MOST_WARPS + warp));
    return v;
  }
  template <typename Op, typename A> DEVICE A all(int slot, A v) const {
    v = within_warp<Op>(v);
    post(slot, v);
    gather();
    return read<Op>(slot, v);
  }
};
