// What a layer keeps of each row: the key/value row in the window's ring, the compressors' projections
// in theirs, and the compressed rows of windows that are complete. And the copies of such rings that let
// a slot go back.
//
// Rings hold what may be looked back at from any of the last positions, and little more. The rows of a
// short round go into them at once: it writes over nothing that it reads. Those of a longer one wait in
// lists until the layer has looked back from all of them; rings are then what was before the round, and
// at its end they take in the last rows of each slot.

// A compressor's projections of this round, where they are kept, and the rows that it makes of them.
struct CompressorArgs {
    const float *kv, *score; // [rows][windows * values]
    const float *ape;        // [ratio][windows * values]
    const float *norm;       // [values]
    u64 at;                  // of the ring, in the slot's arena
    u64 row_at;              // of the layer's rows, in a page
    RowFormat format;        // of its rows
    u32 depth;               // of the ring
    u32 index;               // 1: index rows
};

struct KeepArgs {
    const Row *rows;
    const float2 *turns; // [rows][4][rope / 2]
    float *qr;           // [rows][q_rank], normalised in place
    const float *qr_norm;
    const float *kv; // [rows][values]
    const float *kv_norm;
    RowFormat format;
    CompressorArgs compressors[2]; // the layer's, the indexer's
    u64 window_at;
    u32 window_depth, q_rank, ratio, windows; // the ratio: a power of two
    u32 turn, compressed_turn;
    float eps;
    u32 unused;
    u16 *half;   // [rows][q_rank], or null: qr as halves
    u8 *waiting; // [rows]: the round's rows of the window; null where all go into the rings at once
};

// Threads that do a job.
static const u32 KEEPERS = 512;
// Tokens that a compressed row is made of, at most.
static const u32 POOLED = 128;
// So few of them are held in registers, where a thread has one value of each.
static const u32 FEW_POOLED = 8;

// Where a token's projections lie, and what is still to be added to its scores, or null.
struct Token {
    const float *kv, *score, *ape;
};

// Loads that a thread has under way at a time.
static const u32 ABREAST = 4;

// A thread's values from the `i`th on; zeros beyond the last.
__device__ __forceinline__ void load_some(float (&x)[ABREAST], const float *from, u32 i, u32 n) {
#pragma unroll
    for (u32 k = 0; k < ABREAST; k++) x[k] = i + k * KEEPERS < n ? from[i + k * KEEPERS] : 0.0f;
}

// Asks for weights of a norm, each for the thread that will use it.
__device__ __forceinline__ void ask_for_norm(u32 to, const float *from, u32 n) {
    for (u32 i = threadIdx.x; i < n; i += KEEPERS)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to + 4 * i), "l"(from + i) : "memory");
}

// What values with so many squares in all threads are multiplied with.
__device__ __forceinline__ float inverse_rms(float squares, u32 n, float eps, float *shared32) {
    return 1.0f / sqrtf(block_sum(squares, shared32) / (float)n + eps);
}

// Waits for them, and for the squares of the row's values.
__device__ __forceinline__ float norm_scale(float squares, u32 n, float eps, float *shared32) {
    float scale = inverse_rms(squares, n, eps, shared32);
    asm volatile("cp.async.wait_all;" ::: "memory");
    return scale;
}

// Multiplies with the weights, divides by the root mean square, turns the trailing pairs, of which each thread
// knows its own turn. The values of a thread are those that it wrote.
__device__ __forceinline__ void norm_and_turn(float *v, const float *weight, const RowFormat &f, float2 turn, float eps, float *shared32) {
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < f.values; i += KEEPERS) squares = __fmaf_rn(v[i], v[i], squares);
    float scale = norm_scale(squares, f.values, eps, shared32);
    for (u32 i = threadIdx.x; i < f.values; i += KEEPERS) v[i] = v[i] * scale * weight[i];
    __syncthreads();
    if (threadIdx.x < f.rope / 2) {
        float2 *pair = (float2 *)(v + (f.values - f.rope)) + threadIdx.x, x = *pair;
        *pair = make_float2(__fmaf_rn(x.x, turn.x, -__fmul_rn(x.y, turn.y)), __fmaf_rn(x.y, turn.x, __fmul_rn(x.x, turn.y)));
    }
    __syncthreads();
}

__device__ __forceinline__ float score_of(const Token &token, u32 i) {
    float score = token.score[i];
    return token.ape ? score + token.ape[i] : score;
}

// What a thread has of a token.
struct HeldToken {
    float kv, score;
};

// All loads at once: of tokens that earlier rounds have kept, or of those of this one.
__device__ __forceinline__ void hold_tokens(HeldToken (&held)[FEW_POOLED - 1], const Token *tokens, u32 count, u32 dim, bool here) {
#pragma unroll
    for (u32 k = 0; k < FEW_POOLED - 1; k++) {
        if (k >= count) continue;
        const Token token = tokens[k];
        if ((token.ape != nullptr) != here) continue;
        u32 i = min(threadIdx.x, dim - 1);
        held[k].kv = token.kv[i], held[k].score = score_of(token, i);
    }
}

// A softmax over `count` tokens and the last one, in each dimension.
__device__ __forceinline__ void pool_few(const HeldToken (&held)[FEW_POOLED - 1], const HeldToken &last, u32 count, u32 dim, float *v) {
    float largest = -INFINITE, sum = 0.0f, pooled = 0.0f;
#pragma unroll
    for (u32 k = 0; k < FEW_POOLED - 1; k++)
        if (k < count) largest = fmaxf(largest, held[k].score);
    largest = fmaxf(largest, last.score);
#pragma unroll
    for (u32 k = 0; k < FEW_POOLED - 1; k++)
        if (k < count) {
            float share = expf(held[k].score - largest);
            sum += share;
            pooled = __fmaf_rn(share, held[k].kv, pooled);
        }
    float share = expf(last.score - largest);
    if (threadIdx.x < dim) v[threadIdx.x] = __fmaf_rn(share, last.kv, pooled) / (sum + share);
}

__device__ __forceinline__ void pool_many(const Token *tokens, u32 count, u32 dim, float *v) {
    for (u32 i = threadIdx.x; i < dim; i += KEEPERS) {
        float largest = -INFINITE;
#pragma unroll 4
        for (u32 k = 0; k < count; k++) largest = fmaxf(largest, score_of(tokens[k], i));
        float sum = 0.0f, pooled = 0.0f;
#pragma unroll 4
        for (u32 k = 0; k < count; k++) {
            float share = expf(score_of(tokens[k], i) - largest);
            sum += share;
            pooled = __fmaf_rn(share, tokens[k].kv[i], pooled);
        }
        v[i] = pooled / sum;
    }
}

// Where the window's ring has a row.
__device__ __forceinline__ u8 *kept_row(const KeepArgs &a, const Row &row) {
    return row.arena + a.window_at + (u64)(row.position % a.window_depth) * a.format.bytes;
}

// What is added to the scores of a row.
__device__ __forceinline__ const float *bias_of(const KeepArgs &a, const CompressorArgs &c, const Row &row) {
    return c.ape + (row.position & (a.ratio - 1)) * a.windows * c.format.values;
}

// Where a compressor's ring has what it projects of a row.
__device__ __forceinline__ float *kept_projections(const KeepArgs &a, const CompressorArgs &c, const Row &row) {
    return (float *)(row.arena + c.at) + (u64)(row.position % c.depth) * 2 * a.windows * c.format.values;
}

// Puts it there.
__device__ __forceinline__ void keep_projections(const KeepArgs &a, const CompressorArgs &c, u32 r, float *kept, const float *bias) {
    u32 width = a.windows * c.format.values, first = threadIdx.x;
    const float *values = c.kv + (u64)r * width + first, *scores = c.score + (u64)r * width + first;
    kept += first, bias += first;
    // All loads of two values before the first is waited for.
    for (u32 i = first; i < width; i += 2 * KEEPERS) {
        float value[2], score[2], more[2];
#pragma unroll
        for (u32 k = 0; k < 2; k++)
            if (i + k * KEEPERS < width) value[k] = values[k * KEEPERS], score[k] = scores[k * KEEPERS], more[k] = bias[k * KEEPERS];
#pragma unroll
        for (u32 k = 0; k < 2; k++)
            if (i + k * KEEPERS < width) kept[k * KEEPERS] = value[k], kept[width + k * KEEPERS] = score[k] + more[k];
        kept += 2 * KEEPERS, values += 2 * KEEPERS, scores += 2 * KEEPERS, bias += 2 * KEEPERS;
    }
}

// Which column a thread has of a token in its own window.
__device__ __forceinline__ u32 last_column(const KeepArgs &a, u32 dim) { return (a.windows - 1) * dim + min(threadIdx.x, dim - 1); }

// ------------------------------------------------------------------ encoding

__device__ __forceinline__ void store_plain(const float *v, u32 n, u8 *row) {
    for (u32 i = threadIdx.x; i < n; i += KEEPERS) ((float *)row)[i] = v[i];
}

// Encodes a key/value row: a warp takes a group of 64 codes.
__device__ __forceinline__ void pack_attention(const float *v, const RowFormat f, u8 *row) {
    if (f.plain) return store_plain(v, f.values, row);
    u32 lane = threadIdx.x % 32, warps = KEEPERS / 32, groups = (f.nope + 63) / 64;
    for (u32 g = threadIdx.x / 32; g < groups; g += warps) {
        u32 a = g * 64 + lane, b = a + 32;
        float x = a < f.nope ? v[a] : 0.0f, y = b < f.nope ? v[b] : 0.0f;
        float largest = fmaxf(warp_largest(x), warp_largest(y));
        u32 scale = kv_scale(largest);
        float inverse = e8m0_inverse(scale);
        if (a < f.nope) row[a] = (u8)f32_to_e4m3(x * inverse);
        if (b < f.nope) row[b] = (u8)f32_to_e4m3(y * inverse);
        if (lane == 0) row[f.nope + g] = (u8)scale;
    }
    for (u32 i = f.nope + groups + threadIdx.x; i < f.rope_at; i += KEEPERS) row[i] = 0;
    for (u32 i = threadIdx.x; i < f.rope; i += KEEPERS)
        ((u16 *)(row + f.rope_at))[i] = f32_to_f16(v[f.nope + i]);
}

// Encodes an index row, which is rotated first: one warp has all of it, of each group of 32 codes one to a lane,
// and waits for no other.
__device__ __forceinline__ void pack_index(const float *v, const RowFormat f, u8 *row) {
    if (f.plain) return store_plain(v, f.values, row);
    if (threadIdx.x >= 32) return;
    u32 lane = threadIdx.x, groups = f.values / 32;
    float x[4], norm = hadamard_norm(f.values);
#pragma unroll
    for (u32 g = 0; g < 4; g++) x[g] = g < groups ? v[g * 32 + lane] : 0.0f;
#pragma unroll
    for (u32 stride = 1; stride < 32; stride *= 2)
#pragma unroll
        for (u32 g = 0; g < 4; g++) {
            float other = __shfl_xor_sync(FULL, x[g], stride);
            x[g] = lane & stride ? other - x[g] : x[g] + other;
        }
#pragma unroll
    for (u32 step = 1; step < 4; step *= 2)
#pragma unroll
        for (u32 g = 0; g < 4; g++)
            if (!(g & step) && step < groups) {
                float low = x[g], high = x[g + step];
                x[g] = low + high, x[g + step] = low - high;
            }
#pragma unroll
    for (u32 g = 0; g < 4; g++) {
        if (g >= groups) continue;
        float y = x[g] * norm;
        u32 scale = fp4_scale(warp_largest(y));
        u32 code = f32_to_e2m1(y * e8m0_inverse(scale));
        u32 next = __shfl_down_sync(FULL, code, 1);
        if (lane % 2 == 0) row[g * 16 + lane / 2] = (u8)(code | next << 4);
        if (lane == 0) row[f.values / 2 + g] = (u8)scale;
    }
}

// ------------------------------------------------------------------ jobs

// Keeps what a compressor projects of a row. A row that completes a window makes the window's row: pooled by a
// softmax over its tokens in each dimension. Where windows overlap, the first half of a token's columns belongs to
// the row of the window after its own, the second to its own row.
__device__ __forceinline__ void keep_pending(const KeepArgs &a, const CompressorArgs &c, u32 r, const Row &row, u32 begin, float *v, float *shared32) {
    __shared__ Token tokens[POOLED];
    u32 position = row.position, dim = c.format.values, width = a.windows * dim;
    float *ring = (float *)(row.arena + c.at), *kept = kept_projections(a, c, row), *weight = v + dim;
    bool ends = ((position + 1) & (a.ratio - 1)) == 0;
    u32 own = position + 1 - a.ratio, before = (a.windows - 1) * a.ratio, first = own < before ? 0 : own - before;
    u8 *target = nullptr;
    float2 turn = make_float2(1.0f, 0.0f);
    const float *ape = bias_of(a, c, row);
    for (u32 i = threadIdx.x * 32; i < width; i += KEEPERS * 32) prefetch(ape + i);
    if (ends) {
        u32 t = first + threadIdx.x, back = position - t, column = t < own ? 0 : (a.windows - 1) * dim;
        if (t <= position) {
            // Tokens of the round may not have reached the ring: other blocks keep them, or nobody yet. Slices before
            // this one stand before it in the lists too.
            bool here = back <= row.before;
            long long listed = ((long long)r - back) * width;
            const float *kv = here ? c.kv + listed : ring + (u64)(t % c.depth) * 2 * width;
            const float *score = here ? c.score + listed : kv + width;
            tokens[threadIdx.x] = Token{kv + column, score + column, here ? c.ape + (t & (a.ratio - 1)) * width + column : nullptr};
        }
        target = page_row(row.pages, a.ratio, (u32)c.row_at, own / a.ratio, c.format.bytes);
        if (threadIdx.x < c.format.rope / 2) turn = a.turns[((u64)r * 4 + a.compressed_turn) * (c.format.rope / 2) + threadIdx.x];
        ask_for_norm(shared_address(weight), c.norm, dim);
    }
    u32 count = position + 1 - first;
    bool few = ends && count <= FEW_POOLED && dim <= KEEPERS;
#pragma unroll 1
    for (u32 pass = few ? begin : 1; pass < 2; pass++) {
        // Nothing that follows from them is kept from one pass to the next.
        asm volatile("" : "+r"(r), "+r"(dim));
        HeldToken held[FEW_POOLED - 1] = {}, last = {};
        float more = 0.0f;
        if (pass) {
            if (ends) __syncthreads();
            // What was kept before this round lies there already, and only the last token can come late.
            if (few) hold_tokens(held, tokens, count - 1, dim, false);
            await();
            if (few) {
                if (row.before) hold_tokens(held, tokens, count - 1, dim, true);
                u32 column = last_column(a, dim);
                u64 at = (u64)r * width + column;
                last.kv = c.kv[at], last.score = c.score[at], more = ape[column];
            }
            if (!a.waiting) keep_projections(a, c, r, kept, ape);
            if (!ends) return;
        }
        if (few) {
            last.score += more;
            pool_few(held, last, count - 1, dim, v);
        } else {
            pool_many(tokens, count, dim, v);
        }
        norm_and_turn(v, weight, c.format, turn, a.eps, shared32);
        u8 *to = pass ? target : (u8 *)v;
        if (c.index)
            pack_index(v, c.format, to);
        else
            pack_attention(v, c.format, to);
    }
}

// The jobs that every row has: its low-rank query, its key/value row, and up to two compressors. What depends on no
// kernel before is asked for ahead: weights, and what the host tells of the round. What a rehearsal packs goes where its
// values lie, which it spoils.
static const u32 QUERY_JOB = 0, ROW_JOB = 1, COMPRESS_JOB = 2;

// A job of row `r`, by `KEEPERS` threads, from pass `begin` on; `v` has room for its values and a norm's weights.
__device__ __forceinline__ void keep_job(const KeepArgs &a, u32 job, u32 r, u32 begin, float *v) {
    __shared__ float shared32[32];
    const Row row = a.rows[r];
    if (job == QUERY_JOB) {
        float *qr = a.qr + (u64)r * a.q_rank, x[ABREAST];
        ask_for_norm(shared_address(v), a.qr_norm, a.q_rank);
#pragma unroll 1
        for (u32 pass = begin; pass < 2; pass++) {
            u32 rank = pass ? a.q_rank : 0;
            float squares = 0.0f;
            if (pass) await();
            for (u32 i = threadIdx.x; i < a.q_rank; i += ABREAST * KEEPERS) {
                load_some(x, qr, i, rank);
#pragma unroll
                for (u32 k = 0; k < ABREAST; k++) squares = __fmaf_rn(x[k], x[k], squares);
            }
            float scale = norm_scale(squares, a.q_rank, a.eps, shared32);
            for (u32 i = threadIdx.x; i < a.q_rank; i += ABREAST * KEEPERS) {
                load_some(x, qr, i, rank);
#pragma unroll
                for (u32 k = 0; k < ABREAST; k++) {
                    u32 at = i + k * KEEPERS;
                    if (at >= rank) continue;
                    float y = x[k] * scale * v[at];
                    qr[at] = y;
                    if (a.half) a.half[(u64)r * a.q_rank + at] = half_of(y);
                }
            }
        }
    } else if (job == ROW_JOB) {
        u8 *target = a.waiting ? a.waiting + (u64)r * a.format.bytes : kept_row(a, row);
        float2 turn = make_float2(1.0f, 0.0f);
        if (threadIdx.x < a.format.rope / 2) turn = a.turns[((u64)r * 4 + a.turn) * (a.format.rope / 2) + threadIdx.x];
        ask_for_norm(shared_address(v + a.format.values), a.kv_norm, a.format.values);
#pragma unroll 1
        for (u32 pass = begin; pass < 2; pass++) {
            if (pass) {
                __syncthreads();
                await();
            }
            for (u32 i = threadIdx.x; i < a.format.values; i += ABREAST * KEEPERS) {
                float x[ABREAST];
                load_some(x, a.kv + (u64)r * a.format.values, i, pass ? a.format.values : 0);
#pragma unroll
                for (u32 k = 0; k < ABREAST; k++)
                    if (i + k * KEEPERS < a.format.values) v[i + k * KEEPERS] = x[k];
            }
            norm_and_turn(v, v + a.format.values, a.format, turn, a.eps, shared32);
            pack_attention(v, a.format, pass ? target : (u8 *)v);
        }
    } else {
        keep_pending(a, a.compressors[job - COMPRESS_JOB], r, row, begin, v, shared32);
    }
}

extern "C" __global__ void __launch_bounds__(KEEPERS) keep_rows(const KeepArgs a) {
    extern __shared__ float v[];
    invite();
    keep_job(a, blockIdx.y, blockIdx.x, first_pass(), v);
}

// Takes the rows of a round that have waited into the rings: of each slot as many as a ring holds.
extern "C" __global__ void __launch_bounds__(KEEPERS) settle_rows(const KeepArgs a) {
    enter();
    u32 r = blockIdx.x;
    const Row row = a.rows[r];
    if (row.after < a.window_depth) {
        u32 *kept = (u32 *)kept_row(a, row);
        const u32 *from = (const u32 *)(a.waiting + (u64)r * a.format.bytes);
        for (u32 w = threadIdx.x; w < a.format.bytes / 4; w += blockDim.x) kept[w] = from[w];
    }
#pragma unroll
    for (u32 i = 0; i < 2; i++)
        if (row.after < a.compressors[i].depth) {
            const CompressorArgs &c = a.compressors[i];
            keep_projections(a, c, r, kept_projections(a, c, row), bias_of(a, c, row));
        }
}

// A ring of a slot's arena.
struct Ring {
    u64 at;
    u64 before; // bytes of a row of each ring before this one
    u32 row_bytes; // a multiple of four
    u32 depth;
};

struct SaveArgs {
    const Ring *rings;
    const Row *rows;
    u8 *buffer; // for each ring `capacity` rows
    u64 capacity;
};

// Loads that a thread of it has under way.
static const u32 SAVED_ABREAST = 8;

// Saves what the rows of the round are about to overwrite.
extern "C" __global__ void __launch_bounds__(256) save_rows(const SaveArgs a) {
    enter();
    const Ring ring = a.rings[blockIdx.x];
    const Row row = a.rows[blockIdx.y];
    if (row.undo == NOWHERE) return;
    const u32 *kept = (const u32 *)(row.arena + ring.at + (u64)(row.position % ring.depth) * ring.row_bytes);
    u32 *saved = (u32 *)(a.buffer + ring.before * a.capacity + (u64)row.undo * ring.row_bytes);
    u32 words = ring.row_bytes / 4;
    for (u32 w = threadIdx.x; w < words; w += SAVED_ABREAST * blockDim.x) {
        u32 some[SAVED_ABREAST];
#pragma unroll
        for (u32 k = 0; k < SAVED_ABREAST; k++)
            if (w + k * blockDim.x < words) some[k] = kept[w + k * blockDim.x];
#pragma unroll
        for (u32 k = 0; k < SAVED_ABREAST; k++)
            if (w + k * blockDim.x < words) saved[w + k * blockDim.x] = some[k];
    }
}

// Which positions of a ring are copied, and where their copies lie.
struct RingCopy {
    u64 at;
    u32 from, count;
};

struct CopyArgs {
    const Ring *rings;
    const RingCopy *copies;
    u8 *arena;
    u8 *buffer;
    u32 restore; // 0: from the rings to the buffer; 1: back
    u32 unused;
};

extern "C" __global__ void copy_rings(const CopyArgs a) {
    enter();
    const Ring ring = a.rings[blockIdx.y];
    const RingCopy copy = a.copies[blockIdx.y];
    for (u32 i = blockIdx.x; i < copy.count; i += gridDim.x) {
        u32 *kept = (u32 *)(a.arena + ring.at + (u64)((copy.from + i) % ring.depth) * ring.row_bytes);
        u32 *held = (u32 *)(a.buffer + copy.at + (u64)i * ring.row_bytes);
        for (u32 w = threadIdx.x; w < ring.row_bytes / 4; w += blockDim.x) {
            if (a.restore)
                kept[w] = held[w];
            else
                held[w] = kept[w];
        }
    }
}
