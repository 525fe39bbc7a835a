// The softmax over what a query sees: its window, the compressed rows, the sink. The rows are cut into
// parts, which several blocks take; how they are cut follows from the position alone.

static const u32 TILE = 32;  // rows that are decoded together
static const u32 PARTS = 20; // at most
static const u32 HEADS = 8;  // of a block, one to a warp
static const u32 QUADS = 4;  // of four values to a lane: heads of up to 512 values

struct AttendArgs {
    const Row *rows;
    const float2 *turns;
    const float *q;       // [rows][heads][head_dim]
    const u32 *chosen;    // [rows][top_k]
    const float *sinks;   // [heads]
    float *partial;       // [rows][heads][PARTS][head_dim + 4]: sums, then largest and total
    float *out;           // [rows][heads][head_dim]
    RowFormat format;
    u64 window_at, row_at;
    u32 heads, window, window_depth, ratio; // the ratio: a power of two, or none
    u32 top_k, choose, turn, first;
    float eps, scale;
    u16 *half;         // [rows][heads][head_dim], or null: out as halves
    u32 *arrivals;     // of the parts of a row's heads; zero between launches
    const u8 *waiting; // [rows]: the round's rows of the window; null where all are in the ring
};

struct Sight {
    u32 window_first, window_rows, compressed, tiles_per_part, parts;
    bool chosen;
};

__device__ __forceinline__ Sight sight(const AttendArgs &a, u32 position, u32 tile) {
    Sight s;
    s.window_rows = min(position + 1, a.window);
    s.window_first = position + 1 - s.window_rows;
    s.compressed = a.ratio ? (position + 1) >> __popc(a.ratio - 1) : 0;
    s.chosen = a.choose && s.compressed > a.top_k;
    if (s.chosen) s.compressed = a.top_k;
    u32 tiles = (s.window_rows + s.compressed + tile - 1) / tile;
    s.tiles_per_part = (tiles + PARTS - 1) / PARTS;
    s.parts = tiles;
    if (tiles > PARTS) s.parts = (tiles + s.tiles_per_part - 1) / s.tiles_per_part;
    return s;
}

// Where the row of the window lies that a row of the slice sees as the `index`th.
__device__ __forceinline__ const u8 *window_place(const AttendArgs &a, const Row &row, const Sight &s, u32 r, u32 index) {
    u32 back = s.window_rows - 1 - index;
    // Slices before this one stand before it in the list too. The row is read anew, for registers are dearer.
    if (a.waiting && back <= a.rows[r].before) return a.waiting + (long long)(int)(r - back) * (int)a.format.bytes;
    return row.arena + a.window_at + (u64)((s.window_first + index) % a.window_depth) * a.format.bytes;
}

// Of `2 N` sums to which two lanes have a share each, a lane keeps one half and gives the other.
template <int N> __device__ __forceinline__ void halve(float (&d)[TILE], u32 lane) {
    bool upper = lane & N;
#pragma unroll
    for (int i = 0; i < N; i++) {
        float keep = upper ? d[i + N] : d[i], give = upper ? d[i] : d[i + N];
        d[i] = keep + __shfl_xor_sync(FULL, give, N);
    }
}

extern "C" __global__ void THREADS(256) attend_parts(const AttendArgs a) {
    enter();
    extern __shared__ float tile[];
    __shared__ const u8 *places[TILE];
    u32 r = a.first + blockIdx.z, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Row row = a.rows[r];
    const Sight s = sight(a, row.position, TILE);
    if (blockIdx.x >= s.parts) return;
    u32 dim = a.format.values, nope = dim - a.format.rope;
    u32 head = blockIdx.y * HEADS + warp;
    bool live = head < a.heads;

    // The query: divided by its root mean square, rotated.
    float4 q[QUADS], sum[QUADS];
    const float *mine = a.q + ((u64)r * a.heads + (live ? head : 0)) * dim;
    float squares = 0.0f;
#pragma unroll
    for (u32 j = 0; j < QUADS; j++) {
        u32 at = 4 * lane + 128 * j;
        q[j] = at < dim ? *(const float4 *)(mine + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        squares += (q[j].x * q[j].x + q[j].y * q[j].y) + (q[j].z * q[j].z + q[j].w * q[j].w);
        sum[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    float inverse = 1.0f / sqrtf(warp_sum(squares) / (float)dim + a.eps);
    const float2 *turns = a.turns + ((u64)r * 4 + a.turn) * (a.format.rope / 2);
#pragma unroll
    for (u32 j = 0; j < QUADS; j++) {
        u32 at = 4 * lane + 128 * j;
        q[j] = make_float4(q[j].x * inverse, q[j].y * inverse, q[j].z * inverse, q[j].w * inverse);
        if (at >= nope && at < dim) {
            float2 t = turns[(at - nope) / 2], u = turns[(at - nope) / 2 + 1];
            q[j] = make_float4(q[j].x * t.x - q[j].y * t.y, q[j].x * t.y + q[j].y * t.x,
                               q[j].z * u.x - q[j].w * u.y, q[j].z * u.y + q[j].w * u.x);
        }
    }

    float largest = -INFINITE, total = 0.0f;
    u32 visible = s.window_rows + s.compressed;
    u32 begin = blockIdx.x * s.tiles_per_part * TILE, end = min(begin + s.tiles_per_part * TILE, visible);
    for (u32 start = begin; start < end; start += TILE) {
        u32 count = min(TILE, end - start);
        __syncthreads();
        if (threadIdx.x < TILE) {
            u32 index = start + threadIdx.x;
            const u8 *packed = nullptr;
            if (index < s.window_rows) {
                packed = window_place(a, row, s, r, index);
            } else if (index < end) {
                u32 c = index - s.window_rows;
                if (s.chosen) c = a.chosen[(u64)r * a.top_k + c];
                packed = page_row(row.pages, a.ratio, (u32)a.row_at, c, a.format.bytes);
            }
            places[threadIdx.x] = packed;
        }
        __syncthreads();
        // A warp decodes four rows: all loads first, then all values.
        if (a.format.plain) {
            for (u32 i = warp; i < TILE; i += HEADS)
                for (u32 at = 4 * lane; at < dim; at += 128)
                    *(float4 *)(tile + i * dim + at) = places[i] ? *(const float4 *)(places[i] + 4 * at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        } else {
            uint2 raw[TILE / HEADS][QUADS];
#pragma unroll
            for (u32 i = 0; i < TILE / HEADS; i++) {
                const u8 *packed = places[i * HEADS + warp];
#pragma unroll
                for (u32 j = 0; j < QUADS; j++) {
                    u32 at = 4 * lane + 128 * j;
                    raw[i][j] = packed && at < dim ? packed4(packed, a.format, at) : make_uint2(0, 0);
                }
            }
#pragma unroll
            for (u32 i = 0; i < TILE / HEADS; i++)
#pragma unroll
                for (u32 j = 0; j < QUADS; j++) {
                    u32 at = 4 * lane + 128 * j;
                    if (at < dim) *(float4 *)(tile + (i * HEADS + warp) * dim + at) = decode4(raw[i][j], a.format, at);
                }
        }
        __syncthreads();
        // Every lane has its share of 32 products; they are summed by halving the rows that a lane
        // looks after, until each has one.
        float d[TILE];
#pragma unroll
        for (u32 i = 0; i < TILE; i++) {
            float4 sums = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
            for (u32 j = 0; j < QUADS; j++) {
                u32 at = 4 * lane + 128 * j;
                if (at < dim) add_product(sums, q[j], *(const float4 *)(tile + i * dim + at));
            }
            d[i] = (sums.x + sums.y) + (sums.z + sums.w);
        }
        halve<16>(d, lane);
        halve<8>(d, lane);
        halve<4>(d, lane);
        halve<2>(d, lane);
        halve<1>(d, lane);
        float score = lane < count ? d[0] * a.scale : -INFINITE;
        float max = fmaxf(largest, warp_max(score));
        float shrink = expf(largest - max);
        largest = max;
        float p = lane < count ? expf(score - max) : 0.0f;
        total = total * shrink + warp_sum(p);
#pragma unroll
        for (u32 j = 0; j < QUADS; j++) sum[j] = make_float4(sum[j].x * shrink, sum[j].y * shrink, sum[j].z * shrink, sum[j].w * shrink);
#pragma unroll 8
        for (u32 i = 0; i < TILE; i++) {
            float w = __shfl_sync(FULL, p, i);
#pragma unroll
            for (u32 j = 0; j < QUADS; j++) {
                u32 at = 4 * lane + 128 * j;
                if (at < dim) add_product(sum[j], make_float4(w, w, w, w), *(const float4 *)(tile + i * dim + at));
            }
        }
    }
    if (!live) return;
    float *partial = a.partial + (((u64)blockIdx.z * a.heads + head) * PARTS + blockIdx.x) * (dim + 4);
#pragma unroll
    for (u32 j = 0; j < QUADS; j++) {
        u32 at = 4 * lane + 128 * j;
        if (at < dim) *(float4 *)(partial + at) = sum[j];
    }
    if (lane == 0) partial[dim] = largest, partial[dim + 1] = total;
}

// Puts the parts together, with the sink, and takes the query's rotation out.
extern "C" __global__ void __launch_bounds__(128) attend_join(const AttendArgs a) {
    enter();
    u32 r = a.first + blockIdx.y, head = blockIdx.x;
    const Sight s = sight(a, a.rows[r].position, TILE);
    u32 dim = a.format.values, nope = dim - a.format.rope;
    const float *partial = a.partial + ((u64)blockIdx.y * a.heads + head) * PARTS * (dim + 4);
    // Each lane looks after the weight of one part.
    u32 lane = threadIdx.x % 32;
    const float *own = partial + (u64)lane * (dim + 4) + dim;
    float part_largest = lane < s.parts ? own[0] : -INFINITE, part_total = lane < s.parts ? own[1] : 0.0f;
    float sink = a.sinks[head], largest = fmaxf(sink, warp_max(part_largest));
    float weight = lane < s.parts ? expf(part_largest - largest) : 0.0f;
    float total = expf(sink - largest) + warp_sum(part_total * weight);
    u32 at = 4 * threadIdx.x;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
    for (u32 i = 0; i < s.parts; i++) {
        float w = __shfl_sync(FULL, weight, i);
        if (at < dim) add_product(sum, make_float4(w, w, w, w), *(const float4 *)(partial + (u64)i * (dim + 4) + at));
    }
    if (at >= dim) return;
    sum = make_float4(sum.x / total, sum.y / total, sum.z / total, sum.w / total);
    if (at >= nope) {
        const float2 *turns = a.turns + ((u64)r * 4 + a.turn) * (a.format.rope / 2) + (at - nope) / 2;
        float2 t = turns[0], u = turns[1];
        sum = make_float4(sum.x * t.x + sum.y * t.y, sum.y * t.x - sum.x * t.y,
                          sum.z * u.x + sum.w * u.y, sum.w * u.x - sum.z * u.y);
    }
    u64 target = ((u64)r * a.heads + head) * dim + at;
    *(float4 *)(a.out + target) = sum;
    if (a.half) store_halves(a.half, target, sum);
}
