// Where the logits of a row lie while it is computed: in the registers of the threads that share it. Four ways:
// a part of a warp (few classes, rows aligned), a tile in shared memory (few classes, rows not aligned), a warp, and a
// block of several warps. Each has N logits a thread; `column(i)` is the class of one. `fetch` asks for the
// rows of a block from `top` on, and `settle` waits for them: the next ones are on their way while these are computed.

template <typename T, int LANES, int PACKS> struct PartOfWarp {
  typedef typename Number<T>::Float A;
  static const int THREADS = BLOCK, MEMBERS = LANES, V = 16 / sizeof(T), N = V * PACKS, STEP = LANES * V;
  static const int ROWS = THREADS / MEMBERS, BYTES = 16;
  typedef Words<4> Fetched[PACKS];
  typedef Packs<T, PACKS> Held;

  DEVICE explicit PartOfWarp(char*) {}
  DEVICE int first() const { return member_of<MEMBERS>() * V; }
  DEVICE int column(int i) const { return first() + i / V * STEP + i % V; }
  DEVICE void fetch(const T* logits, i64 stride, i64 top, i64 rows, int classes, Fetched& fetched) const {
    const int sub = row_of_block<MEMBERS>();
    const bool here = sub < rows - top;
    const T* begin = logits + (here ? top + sub : 0) * stride + first();
    const int there = here ? classes - first() : 0;
    const bool aligned = ((u64)begin & 15) == 0;
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      fetched[k] = nothing<T>();
      if (k * STEP < there && aligned) fetched[k] = load_words((const char*)(begin + k * STEP));
      if (k * STEP < there && !aligned) {
#pragma unroll
        for (int j = 0; j < V; ++j) put_item(fetched[k].w, j, ::load(begin + k * STEP + j));
      }
    }
  }
  DEVICE void settle(const T*, i64, i64, int, const Fetched& fetched, Held& v) const {
#pragma unroll
    for (int k = 0; k < PACKS; ++k) v.pack[k] = fetched[k];
  }
  template <typename O, typename Value> DEVICE void store(O* out, i64 top, i64 rows, int classes, Value value) const {
    const int OUT_BYTES = V * sizeof(O), ALIGNED = OUT_BYTES < 16 ? OUT_BYTES : 16, sub = row_of_block<MEMBERS>();
    const bool here = sub < rows - top;
    O* begin = out + (here ? top + sub : 0) * classes + first();
    const bool aligned = ((u64)out & (ALIGNED - 1)) == 0;  // then every row is: it is a multiple of that
    const int there = (here ? classes : 0) - first();  // less than none: a thread writes a part of its neighbour's, too
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      if (aligned) {
        Words<OUT_BYTES / 4> pack;
#pragma unroll
        for (int j = 0; j < V; ++j) put_item(pack.w, j, Encode<O>::of(value(k * V + j)));
        store_part<false>(begin + k * STEP, -first() - k * STEP, there - k * STEP, pack);
      } else {
#pragma unroll
        for (int j = 0; j < V; ++j)
          if (k * STEP + j < there) ::store(begin + k * STEP + j, Encode<O>::of(value(k * V + j)));
      }
    }
  }
};

// WARPS of a row: one, with several rows a block, or all of the block.
template <typename T, int WARPS, int PACKS> struct Warps {
  typedef typename Number<T>::Float A;
  static const int THREADS = WARPS == 1 ? BLOCK : WARPS * 32, MEMBERS = WARPS * 32, V = 16 / sizeof(T), N = V * PACKS;
  static const int STRETCH = PACKS * 32 * V, ROWS = THREADS / MEMBERS, BYTES = 16;
  typedef ::Fetched<PACKS> Fetched;
  typedef Packs<T, PACKS> Held;

  DEVICE explicit Warps(char*) {}
  DEVICE int stretch() const { return member_of<MEMBERS>() / 32 * STRETCH; }
  DEVICE int column(int i) const { return stretch() + (i / V * 32 + thread() % 32) * V + i % V; }
  DEVICE void fetch(const T* logits, i64 stride, i64 top, i64 rows, int classes, Fetched& fetched) const {
    const int sub = row_of_block<MEMBERS>();
    const bool here = sub < rows - top;
    const T* begin = logits + (here ? top + sub : 0) * stride;
    fetch_stretch<T, PACKS>(begin, stretch(), here ? classes : 0, thread() % 32, fetched);
  }
  DEVICE void settle(const T*, i64, i64, int classes, const Fetched& fetched, Held& v) const {
    settle_stretch(classes, thread() % 32, fetched, v);
  }
  template <typename O, typename Value> DEVICE void store(O* out, i64 top, i64 rows, int classes, Value value) const {
    const int sub = row_of_block<MEMBERS>();
    const bool here = sub < rows - top;
    O* begin = out + (here ? top + sub : 0) * classes;
    store_stretch<O, V, PACKS>(begin, stretch(), here ? classes : 0, thread() % 32, value);
  }
};

// ROWS rows lie in shared memory as they do in memory, copied 16 bytes a thread; then LANES threads share each.
template <typename T, int LANES, int HELD, typename O> struct Tile {
  typedef typename Number<T>::Float A;
  static const int THREADS = BLOCK, MEMBERS = LANES, N = HELD, ROWS = THREADS / MEMBERS;
  static const int ITEM = sizeof(T) > sizeof(O) ? sizeof(T) : sizeof(O), BYTES = ROWS * LANES * HELD * ITEM + 32;
  static const int PIECES = (ROWS * LANES * HELD * (int)sizeof(T) + 16 + THREADS * 16 - 1) / (THREADS * 16);
  struct Fetched {
    Words<4> piece[PIECES];
    int skip, count;
  };
  struct Held {
    static const int GROUP = N, GROUPS = 1;
    A x[N];
    DEVICE A at(int i) const { return x[i]; }
    DEVICE void set(int i, A y, bool here) { x[i] = here ? y : x[i]; }
    DEVICE A largest(int) const {
      A most = x[0];
#pragma unroll
      for (int i = 1; i < N; ++i) most = larger(most, x[i]);
      return most;
    }
  };
  char* tile;

  DEVICE explicit Tile(char* shared) : tile(shared) {}
  DEVICE int column(int i) const { return member_of<MEMBERS>() + i * LANES; }
  DEVICE static int count_of(i64 top, i64 rows) {  // rows from `top` on that are in the tile
    return top >= rows ? 0 : rows - top < ROWS ? (int)(rows - top) : ROWS;
  }
  DEVICE void fetch(const T* logits, i64 stride, i64 top, i64 rows, int classes, Fetched& fetched) const {
    const int count = count_of(top, rows);
    const char* begin = (const char*)(logits + (count ? top : 0) * stride);
    const int skip = (int)((u64)begin & 15), own = thread() * 16;
    const int end = stride == classes && count ? skip + count * classes * (int)sizeof(T) - own : 0;
#pragma unroll
    for (int k = 0; k < PIECES; ++k)
      fetched.piece[k] = k * THREADS * 16 < end ? load_words(begin - skip + own + k * THREADS * 16) : Words<4>{};
    fetched.skip = skip;
    fetched.count = count;
  }
  DEVICE void settle(const T* logits, i64 stride, i64 top, int classes, const Fetched& fetched, Held& v) const {
    const int skip = fetched.skip, count = fetched.count, own = thread() * 16, sub = row_of_block<MEMBERS>();
    const int end = count ? skip + count * classes * (int)sizeof(T) - own : 0;
    meet();  // the tile before this one has been read
    if (stride == classes) {
#pragma unroll
      for (int k = 0; k < PIECES; ++k)
        if (k * THREADS * 16 < end) put_words(tile + own + k * THREADS * 16, fetched.piece[k]);
    } else {
      const T* const begin = logits + top * stride;
      for (int i = thread(); i < count * classes; i += THREADS)
        put((T*)(tile + skip) + i, ::load(begin + i / classes * stride + i % classes));
    }
    meet();  // the tile is there
    const T* const begin = (const T*)(tile + skip) + sub * classes;
    const int there = sub < count ? classes : 0;
    if (LANES == 1 && there == N) {
#pragma unroll
      for (int i = 0; i < N; ++i) v.x[i] = (A)decode(get(begin + i));
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) v.x[i] = column(i) < there ? (A)decode(get(begin + column(i))) : minus_infinity<A>();
    }
  }
  template <typename Value> DEVICE void store(O* out, i64 top, i64 rows, int classes, Value value) const {
    const int count = count_of(top, rows), sub = row_of_block<MEMBERS>(), there = sub < count ? classes : 0;
    char* begin = (char*)(out + (count ? top : 0) * classes);
    const int skip = (int)((u64)begin & 15), end = count ? skip + count * classes * (int)sizeof(O) : 0;
    meet();  // the logits, or the results before these, have been read
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (column(i) < there) put((O*)(tile + skip) + sub * classes + column(i), Encode<O>::of(value(i)));
    meet();
    for (int at = thread() * 16; at < end; at += THREADS * 16) {
      if (at >= skip && at + 16 <= end) {
        store16<false>(begin - skip + at, get((const Word4*)(tile + at)));
      } else {
        for (int i = at; i < at + 16 && i < end; i += sizeof(O))
          if (i >= skip) ::store((O*)(begin - skip + i), get((const O*)(tile + i)));
      }
    }
  }
};
