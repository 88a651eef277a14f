// Where the logits of a row lie while it is computed: in the registers of the threads that share it. Four ways:
// a part of a warp (few classes, rows aligned), a tile in shared memory (few classes, rows not aligned), a warp, and a
// block of several warps. Each has N logits a thread in packs of V; pack k of a thread begins at class first() + k * STEP.

template <typename T, int LANES, int PACKS> struct PartOfWarp {
  typedef typename Number<T>::Float A;
  static const int THREADS = BLOCK, MEMBERS = LANES, V = 16 / sizeof(T), N = V * PACKS, STEP = LANES * V;
  static const int ROWS = THREADS / MEMBERS, BYTES = 16;

  DEVICE explicit PartOfWarp(char*) {}
  DEVICE int first() const { return member_of<MEMBERS>() * V; }
  DEVICE void load(const T* logits, i64 stride, i64 row, i64 rows, int classes, A* v) const {
    const T* begin = logits + (row < rows ? row : 0) * stride;
    const bool aligned = ((u64)begin & 15) == 0;
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      const int column = first() + k * STEP;
      if (row >= rows || column >= classes) {
#pragma unroll
        for (int j = 0; j < V; ++j) v[k * V + j] = minus_infinity<A>();
      } else if (aligned) {
        unpack<T, V>(load_words((const char*)(begin + column)), column, classes, v + k * V);
      } else {
#pragma unroll
        for (int j = 0; j < V; ++j)
          v[k * V + j] = column + j < classes ? (A)decode(::load(begin + column + j)) : minus_infinity<A>();
      }
    }
  }
  template <typename O, typename Value> DEVICE void store(O* out, i64 row, i64 rows, int classes, Value value) const {
    const int OUT_BYTES = V * sizeof(O), ALIGNED = OUT_BYTES < 16 ? OUT_BYTES : 16;
    O* begin = out + (row < rows ? row : 0) * classes;
    const bool aligned = ((u64)out & (ALIGNED - 1)) == 0;  // then every row is: it is a multiple of that
    const int last = row < rows ? classes : 0;
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      const int column = first() + k * STEP;
      if (aligned) {
        Words<OUT_BYTES / 4> pack;
#pragma unroll
        for (int j = 0; j < V; ++j) put_item(pack.w, j, Encode<O>::of(value(k * V + j)));
        store_part(begin, column, 0, last, pack);
      } else {
#pragma unroll
        for (int j = 0; j < V; ++j)
          if (column + j < last) ::store(begin + column + j, Encode<O>::of(value(k * V + j)));
      }
    }
  }
};

// WARPS of a row: one, with several rows a block, or all of the block.
template <typename T, int WARPS, int PACKS> struct Warps {
  typedef typename Number<T>::Float A;
  static const int THREADS = WARPS == 1 ? BLOCK : WARPS * 32, MEMBERS = WARPS * 32, V = 16 / sizeof(T), N = V * PACKS;
  static const int STEP = 32 * V, STRETCH = PACKS * STEP, ROWS = THREADS / MEMBERS, BYTES = 16;

  DEVICE explicit Warps(char*) {}
  DEVICE int stretch() const { return member_of<MEMBERS>() / 32 * STRETCH; }
  DEVICE int first() const { return stretch() + thread() % 32 * V; }
  DEVICE void load(const T* logits, i64 stride, i64 row, i64 rows, int classes, A* v) const {
    load_stretch<T, PACKS>(logits + (row < rows ? row : 0) * stride, stretch(), row < rows ? classes : 0, thread() % 32, v);
  }
  template <typename O, typename Value> DEVICE void store(O* out, i64 row, i64 rows, int classes, Value value) const {
    const int written = row < rows ? classes : 0;
    store_stretch<O, V, PACKS>(out + (row < rows ? row : 0) * classes, stretch(), written, thread() % 32, value);
  }
};

// ROWS rows lie in shared memory as they do in memory, copied 16 bytes a thread; then LANES threads share each.
template <typename T, int LANES, int HELD, typename O> struct Tile {
  typedef typename Number<T>::Float A;
  static const int THREADS = BLOCK, MEMBERS = LANES, V = 1, N = HELD, STEP = LANES, ROWS = THREADS / MEMBERS;
  static const int ITEM = sizeof(T) > sizeof(O) ? sizeof(T) : sizeof(O), BYTES = ROWS * LANES * HELD * ITEM + 32;
  char* tile;

  DEVICE explicit Tile(char* shared) : tile(shared) {}
  DEVICE int first() const { return member_of<MEMBERS>(); }
  DEVICE void load(const T* logits, i64 stride, i64 row, i64 rows, int classes, A* v) const {
    const int sub = row_of_block<MEMBERS>();
    const i64 top = row - sub;
    const int count = top >= rows ? 0 : rows - top < ROWS ? (int)(rows - top) : ROWS;
    const char* begin = (const char*)(logits + (count ? top : 0) * stride);
    const int skip = (int)((u64)begin & 15), bytes = classes * (int)sizeof(T);
    meet();  // the tile before this one has been read
    if (stride == classes) {
      for (int at = thread() * 16; at < (count ? skip + count * bytes : 0); at += THREADS * 16)
        put((Word4*)(tile + at), load16(begin - skip + at));
    } else {
      for (int i = thread(); i < count * classes; i += THREADS)
        put((T*)(tile + skip) + i, ::load(logits + (top + i / classes) * stride + i % classes));
    }
    meet();  // the tile is there
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int column = first() + j * STEP;
      const bool there = sub < count && column < classes;
      v[j] = there ? (A)decode(get((const T*)(tile + skip) + sub * classes + column)) : minus_infinity<A>();
    }
  }
  template <typename Value> DEVICE void store(O* out, i64 row, i64 rows, int classes, Value value) const {
    const int sub = row_of_block<MEMBERS>();
    const i64 top = row - sub;
    const int count = top >= rows ? 0 : rows - top < ROWS ? (int)(rows - top) : ROWS;
    char* begin = (char*)(out + (count ? top : 0) * classes);
    const int skip = (int)((u64)begin & 15), end = count ? skip + count * classes * (int)sizeof(O) : 0;
    meet();  // the logits, or the results before these, have been read
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int column = first() + j * STEP;
      if (sub < count && column < classes) put((O*)(tile + skip) + sub * classes + column, Encode<O>::of(value(j)));
    }
    meet();
    for (int at = thread() * 16; at < end; at += THREADS * 16) {
      if (at >= skip && at + 16 <= end) {
        store16(begin - skip + at, get((const Word4*)(tile + at)));
      } else {
        for (int i = at; i < at + 16 && i < end; i += sizeof(O))
          if (i >= skip) ::store((O*)(begin - skip + i), get((const O*)(tile + i)));
      }
    }
  }
};
