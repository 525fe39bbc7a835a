// The experts of one row, side by side, in formats that neither `flash.cu` nor `items.cu` knows; and the router with the
// shared expert's input, of up to 16 rows, where `shared.cu` does not know them.

// The router's product, and the inner vectors of the shared expert, which nobody has to choose. The last of
// the router's blocks chooses the others, while the shared expert is still at work.
__device__ __forceinline__ void router_and_shared_inner(const HalfExpertsArgs &a, uint4 *shared_memory) {
    __shared__ u32 pairs[8], last;
    __shared__ float ones[8];
    const ExpertsArgs &e = a.e;
    u32 r = blockIdx.y * 8, count = min(8u, a.rows - r);
    if (blockIdx.x < a.router_blocks) {
        if (a.route.bias && 32 * threadIdx.x < a.experts) prefetch(a.route.bias + 32 * threadIdx.x);
        half_products<1, ANY>(a.router, blockIdx.x, shared_memory);
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            last = atomicAdd(a.arrived + blockIdx.y, 1) + 1 == a.router_blocks;
            if (last) a.arrived[blockIdx.y] = 0;
            __threadfence();
        }
        __syncthreads();
        if (!last) return;
        float *scores = (float *)shared_memory;
        u32 each = 2 * a.experts + e.used, warp = threadIdx.x / 32;
        if (count == 1)
            route_row<false>(a.route, r, scores, (u32 *)(scores + 2 * a.experts));
        else if (warp < count)
            route_row<true>(a.route, r + warp, scores + warp * each, (u32 *)(scores + warp * each + 2 * a.experts));
        return;
    }
    u32 tiles = tiles_at_once(e.hidden), first = (blockIdx.x - a.router_blocks) * tiles, n = min(threadIdx.x % 32 / 4, count - 1);
    if (threadIdx.x < 8) pairs[threadIdx.x] = (r + threadIdx.x) * (e.used + 1) + e.used, ones[threadIdx.x] = 1.0f;
    Inner of = {e.shared_gate, e.shared_up, first, tiles, e.shared_limit};
    few_inner(a, of, [] { await(); }, count, a.x + (u64)(r + n) * e.hidden, pairs, ones, (u8 *)shared_memory);
}

// Of one row: the inner vectors of the experts that it has chosen.
__device__ __forceinline__ void experts_in_1(const HalfExpertsArgs &a, uint4 *shared_memory) {
    __shared__ u32 pair[1];
    __shared__ float weight[1];
    const ExpertsArgs &e = a.e;
    u32 tiles = a.inner_tiles, per_expert = (e.inner / 16 + tiles - 1) / tiles, k = blockIdx.x / per_expert;
    await();
    invite(); // now: who comes behind may begin with what has been chosen
    u32 expert = e.picked[k];
    if (threadIdx.x == 0) pair[0] = k, weight[0] = e.weights[k];
    __syncthreads();
    Matrix gate = member(e.gate, expert), up = member(e.up, expert);
    Inner of = {gate, up, blockIdx.x % per_expert * tiles, tiles, e.limit};
    few_inner(a, of, [] {}, 1, a.x, pair, weight, (u8 *)shared_memory);
}

// Every `FEW_WARPS`th segment of the strips of the chosen experts, one expert after another.
template <int F> struct OuterWalk {
    const Stack &down;
    const u32 *picks;
    Strip<F> of;
    u32 k, used, segment, segments, inner, row;
    __device__ __forceinline__ OuterWalk(const Stack &down, const u32 *picks, u32 task, u32 used, u32 inner, u32 row)
        : down(down), picks(picks), of(member(down, picks[min(task / segments_of(inner), used - 1)]), row), k(task / segments_of(inner)), used(used), segment(task % segments_of(inner)),
          segments(segments_of(inner)), inner(inner), row(row) {}
    __device__ __forceinline__ const Strip<F> &strip() const { return of; }
    __device__ __forceinline__ u32 column() const { return k * inner + segment * SEGMENT; }
    __device__ __forceinline__ void next() {
        for (segment += FEW_WARPS; segment >= segments; segment -= segments) k++;
        if (k < used) of = Strip<F>(member(down, picks[k]), row);
    }
};

// Experts of a row that a block can list.
static const u32 MOST_USED = 32;

// A block computes 16 values of one row's output: each warp takes segments of the chosen experts, and some
// warps one of the shared expert, whose weights are asked for before anything has been chosen.
__device__ __forceinline__ void experts_out_1(const HalfExpertsArgs &a, uint4 *shared_memory) {
    __shared__ u32 picks[MOST_USED];
    const ExpertsArgs &e = a.e;
    u8 *rooms = (u8 *)shared_memory, *room = rooms + threadIdx.x / 32 * ROOM;
    u32 warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, row = blockIdx.x * 16, segments = segments_of(e.inner), used = e.used, blocks = e.inner / 256;
    u32 all = used * segments, mine = warp < all ? (all - warp + FEW_WARPS - 1) / FEW_WARPS : 0;
    u32 shared = warp < segments ? (segments - warp + FEW_WARPS - 1) / FEW_WARPS : 0;
    float *outputs = (float *)(rooms + FEW_WARPS * ROOM); // [used + 1][segments][16]
    const u16 *const middle[1] = {a.middle}, *const shared_middle[1] = {a.middle + (u64)used * e.inner};
    auto put = [&](u32 task, const float (&sum)[1][4]) {
        float *at = outputs + task * 16 + g;
        if (threadIdx.x % 4 == 0) at[0] = sum[0][0], at[8] = sum[0][2];
    };
    auto done = [&](const auto &walk, const float (&sum)[1][4]) { put(walk.k * segments + walk.segment, sum); };
    auto shared_done = [&](const auto &walk, const float (&sum)[1][4]) { put(all + walk.segment, sum); };
#define BODY(G)                                                                                                           \
    {                                                                                                                     \
        Pipe<G, DEPTH<G>, StripWalk<G>> pipe(room, blocks, shared, {Strip<G>(e.shared_down, row), warp, FEW_WARPS}); \
        pipe.begin();                                                                                                     \
        await();                                                                                                          \
        if (threadIdx.x < used) picks[threadIdx.x] = e.picked[threadIdx.x];                                               \
        __syncthreads();                                                                                                  \
        pipe.template end<1>(shared_middle, shared_done);                                                                 \
    }
    FOR_CODES(e.shared_down.format, BODY)
#undef BODY
#define BODY(G)                                                                                                                 \
    {                                                                                                                           \
        Pipe<G, DEPTH<G>, OuterWalk<G>> pipe(room, blocks, mine, OuterWalk<G>(e.down, picks, warp, used, e.inner, row)); \
        pipe.begin();                                                                                                           \
        pipe.template end<1>(middle, done);                                                                                     \
    }
    FOR_CODES(e.down.first.format, BODY)
#undef BODY
    __syncthreads();
    u32 d = row + threadIdx.x;
    if (threadIdx.x >= 16 || d >= e.hidden) return;
    float y = 0.0f, scale = unscale(e.down.first.format);
    for (u32 s = 0; s < segments; s++) y += outputs[(all + s) * 16 + threadIdx.x];
    y *= unscale(e.shared_down.format);
    for (u32 k = 0; k < used; k++) {
        float sum = 0.0f;
        for (u32 s = 0; s < segments; s++) sum += outputs[(k * segments + s) * 16 + threadIdx.x];
        y = __fadd_rn(y, __fmul_rn(sum, scale));
    }
    e.out[d] = y;
}

EXPERTS_KERNEL(router_and_shared, router_and_shared_inner, 2)

extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) half_experts_in_1(const __grid_constant__ HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    experts_in_1(a, shared_memory);
}

EXPERTS_KERNEL(half_experts_out_1, experts_out_1, 2)
