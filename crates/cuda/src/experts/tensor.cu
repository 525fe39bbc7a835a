// The mixture of experts on tensor cores. One row alone runs its experts side by side
// (`flash.cu` where it knows the formats, `one.cu` in any). Several rows are sorted by expert first, so that those that
// share one read it together: few here, or in `items.cu` where it knows the formats, many in `many.cu` and `hopper.cu`,
// for which a shared expert is one that every row has chosen. Whatever the way, each product is the chain of `tensor/few.cu`, or one of
// whole numbers (`tensor/whole.cuh`), and the outputs are added in the same order: the shared expert's, then those of the chosen.

struct Item {
    u32 expert; // the number of routed experts stands for the shared one
    u32 first;  // of its pairs, in `order`
    u32 count;
    u32 unused;
};

struct HalfExpertsArgs {
    ExpertsArgs e;
    const u16 *x;  // [rows][hidden]
    Numbers numbers;    // the same as whole numbers, for experts of IQ2_XXS
    InnerNumbers inner; // what belongs to `middle` where those are whole numbers, for outputs of Q2_K
    u16 *middle;   // [pairs][inner]; row r's choice k is pair r * (used + 1) + k, the shared expert last
    float *parts;  // [pairs][hidden]
    u32 *order;    // pairs, by expert
    Item *items;   // the first says in `count` how many follow
    RouteArgs route;
    FewProductsArgs router;  // its product, of few rows
    u32 router_blocks, rows, experts, per_item;
    u32 shared_items; // 1: the shared expert's pairs are sorted with the others, 2: those alone are
    u32 inner_tiles;  // of few rows: tiles of 16 inner values that a block takes
    u32 *arrived;     // blocks of the router that are done, for each eight rows; zero between launches
};

// ------------------------------------------------------------------ few rows

// 16 values of inner vectors, several times (or, where rows are short, by several groups of warps).
struct Inner {
    const Matrix &gate, &up;
    u32 first, tiles; // of 16
    float limit;
};

__device__ __forceinline__ u32 tiles_at_once(u32 cols) { return FEW_WARPS / sharers(cols); }

// The segments `lead`, `lead + share`, ... of every `groups`-th tile of gate and up.
template <int F> struct InnerWalk {
    const Matrix &gate, &up;
    Strip<F> strips[2];
    int which; // of the two
    u32 segment, lead, share, segments, tile, groups, row;
    __device__ __forceinline__ InnerWalk(const Inner &of, u32 tile, u32 lead, u32 groups, int which)
        : gate(of.gate), up(of.up), strips{Strip<F>(of.gate, min((of.first + tile) * 16, of.gate.rows - 1)), Strip<F>(of.up, min((of.first + tile) * 16, of.gate.rows - 1))},
          which(which), segment(lead), lead(lead), share(sharers(of.gate.cols)), segments(segments_of(of.gate.cols)), tile(tile), groups(groups), row((of.first + tile) * 16) {}
    __device__ __forceinline__ const Strip<F> &strip() const { return strips[which]; }
    __device__ __forceinline__ u32 column() const { return segment * SEGMENT; }
    __device__ __forceinline__ void next() {
        segment += share;
        if (segment < segments) return;
        segment = lead, tile += groups, row += 16 * groups;
        if (row < gate.rows) strips[0] = Strip<F>(gate, row), strips[1] = Strip<F>(up, row);
    }
};

// `ready` waits for the input; every thread of the block must call this.
template <class Ready>
__device__ __forceinline__ void few_inner(const HalfExpertsArgs &a, const Inner &of, Ready ready, u32 count, const u16 *input, const u32 *pairs, const float *weights, u8 *rooms) {
    const ExpertsArgs &e = a.e;
    u32 segments = segments_of(e.hidden), share = sharers(e.hidden), groups = FEW_WARPS / share, warp = threadIdx.x / 32;
    float *sums = (float *)(rooms + FEW_WARPS * ROOM); // [tiles][gate, up][segments][count][16]
    u32 tile = warp / share, lead = warp % share, all = min(of.tiles, (e.inner + 15) / 16 - min(of.first, (e.inner + 15) / 16));
    u32 tiles = tile < groups && all > tile ? (all - tile + groups - 1) / groups : 0, mine = tiles * ((segments - lead + share - 1) / share);
    u8 *room = rooms + warp * ROOM;
    const u16 *const x[1] = {input};
    auto done = [&](const auto &walk, const float (&sum)[1][4]) { put_segment<1>(sums + ((walk.tile * 2 + walk.which) * segments + walk.segment) * count * 16, sum, count); };
    // Two pieces of any format there would be no room for.
    for (int which = 0; which < 2; which++) {
#define BODY(G)                                                                                                            \
    {                                                                                                                      \
        Pipe<G, DEPTH<G>, InnerWalk<G>> pipe(room, e.hidden / 256, mine, InnerWalk<G>(of, tile, lead, groups, which)); \
        pipe.begin();                                                                                                      \
        if (which == 0) ready();                                                                                           \
        pipe.template end<1>(x, done);                                                                                     \
    }
        FOR_CODES(of.gate.format, BODY)
#undef BODY
    }
    __syncthreads();
    float scale = unscale(of.gate.format);
    for (u32 o = threadIdx.x; o < all * 16 * count; o += blockDim.x) {
        u32 row = o % 16, n = o / 16 / all, which = o / 16 % all, i = (of.first + which) * 16 + row;
        const float *mine = sums + (2 * which * segments * count + n) * 16 + row;
        float g = 0.0f, u = 0.0f;
        for (u32 s = 0; s < segments; s++) g += mine[s * count * 16], u += mine[(segments + s) * count * 16];
        float m = swiglu(g * scale, u * scale, of.limit) * weights[n];
        a.middle[(u64)pairs[n] * e.inner + i] = half_of(m);
    }
}

// The inner vectors of an item.
__device__ __forceinline__ void experts_in_8(const HalfExpertsArgs &a, uint4 *shared_memory) {
    __shared__ u32 pairs[8];
    __shared__ float weights[8];
    const ExpertsArgs &e = a.e;
    await();
    invite();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    if (threadIdx.x < 8) {
        u32 pair = a.order[item.first + min(threadIdx.x, item.count - 1)], r = pair / (e.used + 1), k = pair % (e.used + 1);
        pairs[threadIdx.x] = pair, weights[threadIdx.x] = e.weights[(u64)r * e.used + k];
    }
    __syncthreads();
    const u16 *input = a.x + (u64)(pairs[threadIdx.x % 32 / 4] / (e.used + 1)) * e.hidden;
    Matrix gate = member(e.gate, item.expert), up = member(e.up, item.expert);
    Inner of = {gate, up, blockIdx.x * a.inner_tiles, a.inner_tiles, e.limit};
    few_inner(a, of, [] {}, item.count, input, pairs, weights, (u8 *)shared_memory);
}

// Eight times 16 rows of an item's output matrix.
__device__ __forceinline__ void experts_out_8(const HalfExpertsArgs &a, uint4 *shared_memory) {
    __shared__ u32 pairs[8];
    const ExpertsArgs &e = a.e;
    await();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    if (threadIdx.x < 8) pairs[threadIdx.x] = a.order[item.first + min(threadIdx.x, item.count - 1)];
    __syncthreads();
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = (blockIdx.x * FEW_WARPS + threadIdx.x / 32) * 16;
    if (row >= e.hidden) return;
    Matrix down = member(e.down, item.expert);
    const u16 *const input[1] = {a.middle + (u64)pairs[g] * e.inner};
    float total[4] = {}, scale = unscale(down.format);
    auto done = [&](const auto &, const float (&sum)[1][4]) {
#pragma unroll
        for (int j = 0; j < 4; j++) total[j] += sum[0][j];
    };
    u8 *room = (u8 *)shared_memory + threadIdx.x / 32 * ROOM;
#define BODY(G)                                                                                                                               \
    {                                                                                                                                         \
        Pipe<G, DEPTH<G>, StripWalk<G>> pipe(room, e.inner / 256, segments_of(e.inner), {Strip<G>(down, row), 0, 1}); \
        pipe.begin();                                                                                                                         \
        pipe.template end<1>(input, done);                                                                                                    \
    }
    FOR_CODES(down.format, BODY)
#undef BODY
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        u32 n = 2 * t + j % 2, d = row + g + j / 2 * 8;
        if (n < item.count && d < e.hidden) a.parts[(u64)pairs[n] * e.hidden + d] = total[j] * scale;
    }
}

#define EXPERTS_KERNEL(NAME, BODY, BLOCKS)                                                                      \
    extern "C" __global__ void __launch_bounds__(256, RESIDENT(BLOCKS)) NAME(const __grid_constant__ HalfExpertsArgs a) { \
        extern __shared__ uint4 shared_memory[];                                                                  \
        invite();                                                                                                 \
        BODY(a, shared_memory);                                                                                   \
    }

// It invites when its own input is there: the next kernel's blocks begin with what has been chosen.
extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) half_experts_in_8(const __grid_constant__ HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    experts_in_8(a, shared_memory);
}

EXPERTS_KERNEL(half_experts_out_8, experts_out_8, 2)
