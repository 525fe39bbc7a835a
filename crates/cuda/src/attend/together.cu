// Attention of a few rows on cards that have clusters: every tile of a row has a block, the blocks of eight
// heads are a cluster, and a tile's sums go straight into the shared memory of the blocks that put tiles
// together, each of them a slice of the values. The arithmetic is that of `tensor.cu`, bit for bit.
//
// Only the choice of rows, or where there is none the queries and the rows that this round has kept, come
// late. Whatever a round before has kept is fetched and decoded while the kernels before this one run.

static const u32 MOST_TILES = 10; // of a row
static const u32 SLICES = 8;      // of 64 values

struct TogetherShared {
    AttendShared<1> m;
    __align__(16) float sums[MOST_TILES * 512]; // of the block's slice, from every tile
    Softmax met[MOST_TILES * 8];                // what the heads have met in every tile
    float2 shares[MOST_TILES * 8];
    float over[8]; // one over a head's sum of weights
    u64 sums_box, met_box;
};

// The host knows it too.
static const u32 TOGETHER_SHARED = 103408;
static_assert(sizeof(TogetherShared) <= TOGETHER_SHARED, "shared memory of attention");

// When it is known where a row lies and that it lies there: from the beginning, when the kernels before the
// choice are done, or when the choice is made.
static const u32 AT_ONCE = 0, WHEN_KEPT = 1, WHEN_CHOSEN = 2;

__device__ __forceinline__ u32 known_when(const AttendArgs &a, const Row &row, const Sight &s, u32 index) {
    if (index < s.window_rows) return s.window_rows - 1 - index <= row.before ? WHEN_KEPT : AT_ONCE;
    u32 c = index - s.window_rows;
    if (c >= s.compressed) return AT_ONCE;
    if (s.chosen) return WHEN_CHOSEN;
    // Its last token may be one of this round.
    return (c + 1) * a.ratio + row.before > row.position ? WHEN_KEPT : AT_ONCE;
}

// A row as one of eight threads has it. Some of it was written while this kernel ran: no nearer memory may
// answer that has seen its neighbours before.
__device__ __forceinline__ void fetch_row(uint2 (&units)[SCALED + 2], uint2 &scales, const u8 *place) {
#pragma unroll
    for (u32 g = 0; g < SCALED + 2; g++) units[g] = place ? __ldcg((const uint2 *)(place + unit_at(g))) : make_uint2(0, 0);
    scales = place ? __ldcg((const uint2 *)(place + 64 * SCALED)) : make_uint2(0, 0);
}

// Where two rows of the choice lie: both loads before what depends on either.
__device__ __forceinline__ void chosen_places(const AttendArgs &a, const Row &row, const Sight &s, u32 r, u32 first, const u32 (&passes)[2], const u8 *(&places)[2]) {
    const u32 *chosen = a.chosen + (u64)r * a.top_k + first - s.window_rows;
    u32 shift = __popc(PAGE_TOKENS / a.ratio - 1), index[2];
    const u8 *pages[2];
#pragma unroll
    for (u32 i = 0; i < 2; i++) index[i] = passes[i] >> WHEN_CHOSEN ? __ldcg(chosen + 32 * i) : 0;
#pragma unroll
    for (u32 i = 0; i < 2; i++) pages[i] = row.pages[index[i] >> shift];
#pragma unroll
    for (u32 i = 0; i < 2; i++)
        if (passes[i] >> WHEN_CHOSEN) places[i] = pages[i] + a.row_at + (u64)(index[i] & ((1u << shift) - 1)) * ROW_BYTES;
}

// Brings near what may be chosen, where that is not much more than what will be. A row begins anywhere in a line.
__device__ __forceinline__ void ask_for_candidates(const AttendArgs &a, const Row &row) {
    u32 rows = (row.position + 1) / a.ratio, lines = (ROW_BYTES + 127) / 128;
    if (rows > 4 * a.top_k) return;
    for (u32 i = (blockIdx.y * gridDim.x + blockIdx.x) * 256 + threadIdx.x; i < rows * lines; i += gridDim.x * gridDim.y * 256)
        prefetch(page_row(row.pages, a.ratio, (u32)a.row_at, i / lines, ROW_BYTES) + i % lines * 128);
}

// Puts the block's slice of all tiles together, in the order of the tiles, and writes it. A thread has one
// value of two heads, and after an exchange with its neighbour two values of one.
__device__ __forceinline__ void finish_slice(const AttendArgs &a, TogetherShared &t, u32 r, u32 first_head, u32 tiles, bool rehearsal) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, pair = lane / 2 % 4 * 2, odd = lane / 8 % 2;
    u32 even_value = warp / 2 * 16 + lane % 2 * 8 + warp % 2 * 4 + lane / 16 * 2;
    float2 turn = make_float2(1.0f, 0.0f);
    if (blockIdx.x == SLICES - 1) turn = a.turns[((u64)r * 4 + a.turn) * (a.format.rope / 2) + even_value / 2];
    if (warp == 0) {
        if (!rehearsal) wait_for(&t.met_box);
        if (lane < 8) {
            Softmax s{t.m.norms[lane], 1.0f};
#pragma unroll
            for (u32 p = 0; p < MOST_TILES; p++)
                if (p < tiles) {
                    Softmax part = t.met[p * 8 + lane];
                    t.shares[p * 8 + lane] = merge(s, part.largest, part.total);
                }
            t.over[lane] = 1.0f / s.total;
        }
    }
    __syncthreads();
    if (!rehearsal) wait_for(&t.sums_box);
    float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll
    for (u32 p = 0; p < MOST_TILES; p++)
        if (p < tiles) {
            float2 more = *(const float2 *)(t.sums + p * 512 + 2 * threadIdx.x);
            float4 shares = *(const float4 *)(t.shares + p * 8 + pair);
            sum = make_float2(__fmaf_rn(more.x, shares.y, __fmul_rn(sum.x, shares.x)), __fmaf_rn(more.y, shares.w, __fmul_rn(sum.y, shares.z)));
        }
    float other = __shfl_xor_sync(FULL, odd ? sum.x : sum.y, 8);
    u32 head = pair + odd;
    float norm = t.over[head], x = odd ? other : sum.x, y = odd ? sum.y : other;
    float2 v = turned(__fmul_rn(x, norm), __fmul_rn(y, norm), make_float2(turn.x, -turn.y));
    u64 target = ((u64)r * a.heads + first_head + head) * 512 + blockIdx.x * 64 + even_value;
    if (rehearsal || first_head + head >= a.heads) return;
    if (a.out) *(float2 *)(a.out + target) = v;
    if (a.half) *(u32 *)(a.half + target) = pair_of(v.x, v.y);
}

// Of the usual rows, whose tiles are no more than blocks of a cluster.
extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) attend_together(const AttendArgs a) {
    extern __shared__ uint4 attending_together[];
    TogetherShared &t = *(TogetherShared *)attending_together;
    AttendShared<1> &m = t.m;
    u32 r = a.first + blockIdx.z, first_head = blockIdx.y * 8, tile = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Row row = a.rows[r];
    const Sight sees = sight(a, row.position, SPAN);
    u32 visible = sees.window_rows + sees.compressed, tiles = (visible + SPAN - 1) / SPAN;
    bool busy = tile < tiles;
    if (threadIdx.x == 0) {
        open_box(&t.sums_box, tiles * 2048);
        open_box(&t.met_box, tiles * 64);
    }
    arrive(); // from here on others may write here
    if (a.ratio && threadIdx.x <= row.position / PAGE_TOKENS / 16) touch(row.pages + threadIdx.x * 16);
    if (threadIdx.x < 8) m.norms[threadIdx.x] = sink(a, first_head + threadIdx.x).largest;
    if (sees.chosen) ask_for_candidates(a, row);
    // Two rows of the tile: in which passes they are taken, the last time for good.
    u32 first = tile * SPAN + threadIdx.x / 8, passes[2];
    const u8 *places[2];
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        u32 when = busy ? known_when(a, row, sees, first + 32 * i) : AT_ONCE;
        passes[i] = 1 << AT_ONCE | 1 << when;
        places[i] = busy && when != WHEN_CHOSEN ? row_place(a, row, sees, r, first + 32 * i) : nullptr;
    }
    // The choice lets this kernel begin when all before the choice is done: where rows are chosen, only the choice
    // has to be waited for.
#pragma unroll 1
    for (u32 now = AT_ONCE; now <= WHEN_CHOSEN; now++) {
        if (now == (sees.chosen ? WHEN_CHOSEN : WHEN_KEPT)) await(), invite();
        bool rehearsal = now == AT_ONCE;
        if (now == WHEN_CHOSEN && sees.chosen) chosen_places(a, row, sees, r, first, passes, places);
        if (busy) {
            uint2 units[2][SCALED + 2], scales[2];
#pragma unroll
            for (u32 i = 0; i < 2; i++)
                if (passes[i] >> now & 1) fetch_row(units[i], scales[i], passes[i] >> now == 1 ? places[i] : nullptr);
            if (now == WHEN_KEPT) stage_queries(a, r, first_head, 8, 512, m.queries);
#pragma unroll
            for (u32 i = 0; i < 2; i++)
                if (passes[i] >> now & 1) decode_row(units[i], scales[i], m.tile + (32 * i + threadIdx.x / 8) * LINE);
        }
        if (now == WHEN_KEPT) continue;
        // What follows is done once for nothing, with whatever lies there, as `first_pass` says.
        if (threadIdx.x < 8) m.met[threadIdx.x] = Softmax{-INFINITE, 0.0f};
        if (!rehearsal) wait_for_all();
        if (busy) {
            __syncthreads();
            score_tile<1>(m, 512);
            __syncthreads();
            weigh_tile<1>(m, visible - tile * SPAN, a.scale);
            __syncthreads();
            // Four lanes to a block that puts a slice together: two heads each.
            if (!rehearsal && warp == 0) post(lane / 4, (const float *)(t.met + tile * 8 + lane % 4 * 2), *(const float4 *)(m.met + lane % 4 * 2), &t.met_box);
            Sums<1> sums;
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int c = 0; c < 4; c++) sums[i][0][c] = -0.0f;
            add_tile<1>(m, sums);
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (!rehearsal) post(warp, t.sums + tile * 512 + (i * 32 + lane) * 4, make_float4(sums[i][0][0], sums[i][0][1], sums[i][0][2], sums[i][0][3]), &t.sums_box);
        }
        if (tile < SLICES) finish_slice(a, t, r, first_head, tiles, rehearsal);
    }
}
