// Matrices times many vectors on Hopper, four of whose warps, a group, multiply together: 64 rows of weights
// from their registers with up to 128 vectors from shared memory, while they decode the next weights. A block
// of two groups takes 128 rows and 128 vectors. The chain of every sum is that of `few.cu`, or, of whole
// numbers, that of blocks: the tensor cores add alike, whether a warp or a group asks them.

// Warps of a block, rows of weights that they take, and vectors.
static const u32 WIDE_WARPS = 8, WIDE_ROWS = 16 * WIDE_WARPS, WIDE_VECTORS = 128;
// Bytes of a run of columns of the vectors; of how many runs there is room for them, and how many are under way.
static const u32 WIDE_RUN = 64 * WIDE_VECTORS * 2, WIDE_RUNS = 6, WIDE_AHEAD = 4;
static const u32 WIDE_RING = WIDE_RUNS * WIDE_RUN;
// Blocks of columns of its rows that a warp has room for.
static const u32 WIDE_DEPTH = 2;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// ------------------------------------------------------------------ products of a group of warps

// Between what the registers of a product got by ordinary means and the product.
__device__ __forceinline__ void registers_ready() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void products_begun() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int LEFT> __device__ __forceinline__ void products_done() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory"); }

// Each group comes here by a way of its own.
__device__ __forceinline__ void meet_groups() { asm volatile("bar.sync 0;" ::: "memory"); }

// Shared memory that was written by ordinary means may be read by products, after a barrier.
__device__ __forceinline__ void written_for_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#define NUMBERS_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NUMBERS_48 NUMBERS_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define NUMBERS_64 NUMBERS_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SUMS_8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define SUMS_32 SUMS_8(0), SUMS_8(8), SUMS_8(16), SUMS_8(24)
#define SUMS_48 SUMS_32, SUMS_8(32), SUMS_8(40)
#define SUMS_64 SUMS_48, SUMS_8(48), SUMS_8(56)

// 64 x 16 weights times 16 x N activations, added to `d`, or put there. The lanes of warp w hold the weights
// of its 16 rows, and sums, as `mma` wants them. `x` says where the activations lie, as they are packed: it is 128
// bytes from one half of the columns to the other, and a run's 1024 from eight vectors to the next.
#define WIDE_PRODUCT(VECTORS, NUMBERS, SUMS, A0, A1, A2, A3, X, ADDS)                                                           \
    asm volatile("{ .reg .pred p; .reg .b64 x; setp.ne.b32 p, " ADDS ", 0; mov.b64 x, {" X ", 64}; "                           \
                 "wgmma.mma_async.sync.aligned.m64n" VECTORS "k16.f32.f16.f16 {" NUMBERS "}, {" A0 ", " A1 ", " A2 ", " A3 "}, x, p, 1, 1, 0; }" \
                 : SUMS                                                                                                         \
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(x), "r"(adds))

template <int N> __device__ __forceinline__ void wide_mma(float (&d)[64], u32 a0, u32 a1, u32 a2, u32 a3, u32 x, u32 adds) {
    if constexpr (N == 64) WIDE_PRODUCT("64", NUMBERS_32, SUMS_32, "%32", "%33", "%34", "%35", "%36", "%37");
    if constexpr (N == 96) WIDE_PRODUCT("96", NUMBERS_48, SUMS_48, "%48", "%49", "%50", "%51", "%52", "%53");
    if constexpr (N == 128) WIDE_PRODUCT("128", NUMBERS_64, SUMS_64, "%64", "%65", "%66", "%67", "%68", "%69");
}

// A run of 16 rows of a warp with the same run of N vectors.
template <int N> __device__ __forceinline__ void wide_run(float (&d)[64], const u32 (&a)[8], const u32 (&b)[8], u32 x, u32 adds) {
    registers_ready();
#pragma unroll
    for (u32 j = 0; j < 4; j++) wide_mma<N>(d, a[2 * j], b[2 * j], a[2 * j + 1], b[2 * j + 1], x + 16 * j, j ? 1 : adds);
    products_begun();
}

// ------------------------------------------------------------------ weights and vectors on their way

// Eight rows of a matrix, from their first column: half of a strip. Rows beyond the matrix's last eight are those.
template <int F> struct Eight {
    const u8 *codes, *scales;
    __device__ __forceinline__ Eight(const Matrix &m, u32 row) {
        row = min(row, (m.rows - 1) / 8 * 8);
        u32 half = row / 8 % 2;
        const u8 *tile = m.codes + (u64)(row / 16) * (m.cols / 256) * TILE_BYTES<F>;
        codes = tile + half * (8 * Widths<F>::codes);
        scales = F == FP8 ? scales_of_128(m, row) : tile + 16 * Widths<F>::codes + half * (8 * Widths<F>::scales);
    }
};

// What a warp brings of the weights: its own 16 rows, a block of columns at a time. They lie in its room as in a
// tile, the upper eight first.
template <int F> struct WideWeights {
    static const u32 codes = 8 * Widths<F>::codes, scales = 8 * Widths<F>::scales;
    const u8 *upper, *lower, *scale; // a lane's part of what is asked for next
    const u8 *scale_below;           // of FP8, whose scales stay where they are, `scale` is the upper rows'
    u32 room, left;                  // blocks that have not been asked for
    __device__ __forceinline__ WideWeights(const Eight<F> &above, const Eight<F> &below, u32 blocks, const u8 *rooms)
        : scale(above.scales), scale_below(below.scales), room(shared_address(rooms) + threadIdx.x / 32 * (WIDE_DEPTH * TILE_BYTES<F>)), left(blocks) {
        u32 lane = threadIdx.x % 32;
        upper = above.codes + lane * 16, lower = below.codes + lane * 16;
        if constexpr (scales > 0) scale = lane < scales / 16 ? above.scales + lane * 16 : below.scales + lane * 16 - scales;
    }
    __device__ __forceinline__ void ask(u32 which) {
        if (left > 0) {
            left--;
            u32 to = room + which * TILE_BYTES<F> + threadIdx.x % 32 * 16;
            ask_line<codes>(to, upper);
            ask_line<codes>(to + codes, lower);
            upper += TILE_BYTES<F>, lower += TILE_BYTES<F>;
            if constexpr (scales > 0) {
                if (threadIdx.x % 32 < scales / 8) copy_further<0>(to + 2 * codes, scale);
                scale += TILE_BYTES<F>;
            }
        }
    }
    // The lane's rows of a block that has come. Where they lie is computed when it is wanted: there are no
    // registers to keep that for both rooms.
    __device__ __forceinline__ Span<F> rows(u32 which) const {
        u32 thread = threadIdx.x;
        asm volatile("" : "+r"(thread));
        u32 at = room + which * TILE_BYTES<F>;
        return Span<F>(at, at + 2 * codes, thread % 32 / 4, Codes<F>::lane(thread % 4), nullptr);
    }
    __device__ __forceinline__ void begin(Tile<F> &tile, Span<F> at, u32 block) const {
        at.beside = scale + 2 * block;
        tile.a.begin(at, 0, threadIdx.x % 4);
        if (F == FP8) at.beside = scale_below + 2 * block;
        tile.b.begin(at, 8, threadIdx.x % 4);
    }
};

// Where the vectors of a block lie, packed: the run of its first eight, how far it is to that of the next eight, how
// many eights there are.
struct Packed {
    const u16 *first;
    u32 stride, eights; // values
};

// What a thread brings of N vectors: of a run 16 bytes of every fourth eight.
template <int N> struct WideInputs {
    const u8 *from; // of the run that is asked for next
    u32 further[N / 32], to, left;
    u32 ask_place; // of the runs' places
    __device__ __forceinline__ WideInputs(const Packed &packed, u32 runs, const u8 *ring)
        : from((const u8 *)packed.first + threadIdx.x % 64 * 16), to(shared_address(ring) + threadIdx.x * 16), left(runs), ask_place(0) {
        // Vectors that are not there are the last ones once more.
#pragma unroll
        for (u32 k = 0; k < N / 32; k++) further[k] = min(threadIdx.x / 64 + 4 * k, packed.eights - 1) * packed.stride * 2;
    }
    __device__ __forceinline__ void ask() {
        if (left > 0) {
            left--;
            u32 at = to + ask_place * WIDE_RUN;
#pragma unroll
            for (u32 k = 0; k < N / 32; k++) copy_further<0>(at + k * 4096, from + further[k]);
            from += 1024;
            ask_place = ask_place + 1 < WIDE_RUNS ? ask_place + 1 : 0;
        }
        copies_begun();
    }
    // The first two runs are there; others are asked for. What was asked for before has come too.
    __device__ __forceinline__ void begin() {
#pragma unroll
        for (u32 i = 0; i < WIDE_AHEAD; i++) ask();
        copies_done<WIDE_AHEAD - 2>();
        written_for_products();
    }
    // While a run is multiplied: the next but one has come, and others are asked for.
    __device__ __forceinline__ void step() {
        ask();
        copies_done<WIDE_AHEAD - 2>();
        written_for_products();
    }
};

// ------------------------------------------------------------------ the columns of a block

// A run of a lane's two rows.
template <int F> __device__ __forceinline__ void wide_decode(const Tile<F> &tile, const Iq2Table *table, u32 s, u32 (&a)[8], u32 (&b)[8]) {
    const Matrix not_needed = {};
    tile.a.run(not_needed, table, s, threadIdx.x % 4, a);
    tile.b.run(not_needed, table, s, threadIdx.x % 4, b);
#pragma unroll
    for (u32 i = 0; i < 8; i++) asm volatile("" : "+r"(a[i]), "+r"(b[i])); // here, not behind `registers_ready`
}

// What belongs to vectors that are no whole numbers.
struct WideNoUnits {
    __device__ __forceinline__ void ask(u32, u32) {}
};

// The units of all vectors, [blocks][WIDE_VECTORS] in shared memory; they need no sums.
struct WideStagedUnits {
    const float *at;
    __device__ __forceinline__ void ask(u32, u32) {}
    __device__ __forceinline__ float2 units(u32 block, u32, u32 vector) const { return *(const float2 *)(at + block * WIDE_VECTORS + vector); }
    __device__ __forceinline__ uint2 sums(u32, u32) const { return make_uint2(0, 0); }
};

// Those of pairs, of two blocks at a time: sums, and then units.
static const u32 WIDE_UNITS = WIDE_VECTORS * (16 * 2 + 4);

struct WidePairUnits {
    const u32 *pairs;
    InnerNumbers of;
    u32 blocks;
    u8 *room;
    __device__ __forceinline__ void ask(u32 block, u32 which) {
        if (block >= blocks) return;
        u32 thread = thread_anew(), vector = thread / 2;
        u8 *to = room + which * WIDE_UNITS;
        u64 at = (u64)pairs[vector] * blocks + block;
        copy_async(to + thread * 16, (const u8 *)(of.sums + at * 16) + thread % 2 * 16);
        if (thread % 2 == 0) copy_word_async(to + WIDE_VECTORS * 32 + vector * 4, of.units + at);
    }
    __device__ __forceinline__ float2 units(u32, u32 which, u32 vector) const { return *(const float2 *)(room + which * WIDE_UNITS + WIDE_VECTORS * 32 + vector * 4); }
    __device__ __forceinline__ uint2 sums(u32 which, u32 vector) const { return *(const uint2 *)(room + which * WIDE_UNITS + vector * 32 + thread_anew() % 4 * 8); }
};

// 16 rows of each warp times up to N vectors. `room` has room for the vectors' ring and two blocks of columns of
// all rows. Every thread of the block must call this. A lane gets the sums of row g of the upper eight, and of the
// lower, for vectors 8 n + 2 t and the next: of the upper total[4 n] and total[4 n + 1], of the lower the two
// behind them. What belongs to vectors that are whole numbers `units` brings, block by block.
template <int F, int N, class Units>
__device__ __forceinline__ void wide_columns(const Eight<F> &upper, const Eight<F> &lower, u32 blocks, const Packed &packed, Units units, u8 *room, const Iq2Table *table, float (&total)[64]) {
    // One group meets the other before its products, one behind them: so one multiplies while the other decodes.
    // Either way a run is there before it is multiplied: all threads had their part of it two runs earlier.
    const bool late = threadIdx.x >= 16 * WIDE_WARPS;
    WideWeights<F> weights(upper, lower, blocks, room + WIDE_RING);
    weights.ask(0);
    weights.ask(1);
    units.ask(0, 0);
    WideInputs<N> inputs(packed, 4 * blocks, room);
    inputs.begin();
    // Where products find the first run, in 16 bytes, and how far it is from one half of the columns to the other.
    const u32 x = shared_address(room) >> 4 | 8 << 16;
    u32 place = 0;
    float sum[64];
#pragma unroll
    for (u32 i = 0; i < 64; i++) total[i] = 0.0f, sum[i] = 0.0f;
    Tile<F> tile;
    u32 a[2][8], b[2][8];
    __syncwarp();
    Span<F> at = weights.rows(0);
    weights.begin(tile, at, 0);
    tile.fetch(at, 0);
    wide_decode<F>(tile, table, 0, a[0], b[0]);
    // A block of columns, which `which` room holds.
    auto multiply = [&](u32 block, const u32 which) {
#pragma unroll
        for (u32 s = 0; s < 4; s++) {
            if (!late) meet_groups();
            wide_run<N>(sum, a[s % 2], b[s % 2], x + place * (WIDE_RUN / 16), BY_BLOCKS<F> ? s > 0 : s + which > 0);
            place = place + 1 < WIDE_RUNS ? place + 1 : 0;
            // The products before these have read their weights.
            products_done<1>();
            if (late) meet_groups();
            if (s == 3) {
                // All lanes have the next block, which was asked for four runs ago, and are done with this one.
                __syncwarp();
                weights.ask(which);
                at = weights.rows(1 - which);
                weights.begin(tile, at, min(block + 1, blocks - 1));
            }
            tile.fetch(at, (s + 1) % 4);
            wide_decode<F>(tile, table, (s + 1) % 4, a[(s + 1) % 2], b[(s + 1) % 2]);
            // To the places of what is two blocks back, or of the run before the last: every group was done with it before
            // the groups met.
            if (s == 1) units.ask(block + 1, 1 - which);
            inputs.step();
        }
    };
    // When all products are done, and not before.
    auto done = [&](u32 i) {
        float x = sum[i];
        asm volatile("" : "+f"(x));
        return x;
    };
    // A block by itself, or two: a segment. What only formats of whole numbers have is looked for only with those.
    auto by_itself = [&](auto &units, const auto &tile, u32 block, const u32 which) {
        const auto scales = scales_of(tile); // those of the next block take their place
        multiply(block, which);
        products_done<0>();
#pragma unroll
        for (u32 n = 0; n < N / 8; n++) {
            float some[4] = {done(4 * n), done(4 * n + 1), done(4 * n + 2), done(4 * n + 3)};
            scales.add(total + 4 * n, some, units.units(block, which, 8 * n + threadIdx.x % 4 * 2), units.sums(which, 8 * n + threadIdx.x % 32 / 4));
        }
    };
    if (late) meet_groups();
    for (u32 block = 0; block < blocks; block += 2) {
        if constexpr (BY_BLOCKS<F>) {
            by_itself(units, tile, block, 0);
            if (block + 1 < blocks) by_itself(units, tile, block + 1, 1);
        } else {
            multiply(block, 0);
            if (block + 1 < blocks) multiply(block + 1, 1);
            products_done<0>();
#pragma unroll
            for (u32 i = 0; i < N / 2; i++) total[i] += done(i);
        }
    }
    if (!late) meet_groups();
}

#endif
