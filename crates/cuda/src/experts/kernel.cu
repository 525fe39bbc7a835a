// The mixture of experts: the choice, what goes in, what comes out.

struct RouteArgs {
    const Row *rows;
    const float *logits; // [rows][experts]
    const u32 *table;    // [vocab][used], where tokens choose
    const float *bias;   // [experts], where scores choose
    u32 *picked;         // [rows][used]
    float *weights;      // [rows][used]
    u32 experts, used;
    float scale;
    u32 unused;
};

__device__ __forceinline__ float softplus(float x) { return x > 20.0f ? x : x < -20.0f ? expf(x) : log1pf(expf(x)); }

// The largest keys come first, the lowest index of equal ones. A warp chooses: a lane looks after every
// 32nd key, EACH in all.
template <int EACH> __device__ __forceinline__ void pick_largest(const u32 *keys, u32 count, u32 used, u32 *picks) {
    u32 lane = threadIdx.x % 32, taken = 0, best = 0, at = NOWHERE, mine[EACH];
#pragma unroll
    for (u32 j = 0; j < EACH; j++) mine[j] = lane + 32 * j < count ? keys[lane + 32 * j] : 0;
    auto look = [&] {
        at = NOWHERE, best = 0;
#pragma unroll
        for (u32 j = 0; j < EACH; j++)
            if (lane + 32 * j < count && !(taken >> j & 1) && (at == NOWHERE || mine[j] > best)) at = lane + 32 * j, best = mine[j];
    };
    look();
    for (u32 k = 0; k < used; k++) {
        u32 largest = __reduce_max_sync(FULL, best);
        u32 pick = __reduce_min_sync(FULL, best == largest ? at : NOWHERE);
        if (lane == 0) picks[k] = pick;
        if (at == pick) taken |= 1u << (at / 32), look();
    }
}

// What the scores of a row's experts are divided by.
__device__ __forceinline__ float sum_of_chosen(const float *scores, const u32 *picks, u32 used) {
    float sum = 0.0f;
    for (u32 k = 0; k < used; k++) sum += scores[picks[k]];
    return sum < 6.103515625e-5f ? 6.103515625e-5f : sum;
}

// Who chooses for a row: all threads of the block, or a warp.
template <bool WARP> __device__ __forceinline__ u32 chooser() { return WARP ? threadIdx.x % 32 : threadIdx.x; }

template <bool WARP> __device__ __forceinline__ u32 choosers() { return WARP ? 32 : blockDim.x; }

template <bool WARP> __device__ __forceinline__ void meet() {
    if (WARP)
        __syncwarp();
    else
        __syncthreads();
}

// A row's choice. `scores` has room for two words for each expert, `picks` for those that are used.
template <bool WARP> __device__ __forceinline__ void route_row(const RouteArgs &a, u32 r, float *scores, u32 *picks) {
    // So many are asked for before the first is waited for.
    const u32 ahead = WARP ? 8 : 1;
    u32 *keys = (u32 *)(scores + a.experts), me = chooser<WARP>(), by_token = 0;
    if (a.table && me < a.used) by_token = __ldg(a.table + (u64)a.rows[r].token * a.used + me);
    for (u32 first = me; first < a.experts; first += ahead * choosers<WARP>()) {
        float logit[ahead], bias[ahead];
#pragma unroll
        for (u32 j = 0; j < ahead; j++) {
            u32 e = min(first + j * choosers<WARP>(), a.experts - 1);
            logit[j] = __ldcg(a.logits + (u64)r * a.experts + e), bias[j] = a.table ? 0.0f : __ldg(a.bias + e);
        }
#pragma unroll
        for (u32 j = 0; j < ahead; j++) {
            u32 e = first + j * choosers<WARP>();
            float s = sqrtf(softplus(logit[j]));
            if (e >= a.experts) continue;
            scores[e] = s;
            if (!a.table) keys[e] = ordered(s + bias[j]);
        }
    }
    if (a.table && me < a.used) picks[me] = by_token;
    meet<WARP>();
    if (!a.table) {
        if (me < 32 && a.experts <= 256)
            pick_largest<8>(keys, a.experts, a.used, picks);
        else if (me < 32)
            pick_largest<32>(keys, a.experts, a.used, picks);
        meet<WARP>();
    }
    float sum = sum_of_chosen(scores, picks, a.used);
    for (u32 k = me; k < a.used; k += choosers<WARP>()) {
        a.picked[(u64)r * a.used + k] = picks[k];
        a.weights[(u64)r * a.used + k] = scores[picks[k]] / sum * a.scale;
    }
}

extern "C" __global__ void __launch_bounds__(256) route(const RouteArgs a) {
    extern __shared__ float scores[]; // two words for each expert, one for each that is used
    enter();
    route_row<false>(a, blockIdx.x, scores, (u32 *)(scores + 2 * a.experts));
}

struct ExpertsArgs {
    Stack gate, up, down;                        // routed
    Matrix shared_gate, shared_up, shared_down;  // shared
    const float *x;                              // [rows][hidden]
    const u32 *picked;                           // [rows][used]
    const float *weights;                        // [rows][used]
    float *middle;                               // [rows][used + 1][inner], the shared expert last
    float *out;                                  // [rows][hidden]
    u32 used, inner, hidden, unused;
    float limit, shared_limit;
};

// SwiGLU with both sides clamped by comparisons, so that NaN stays NaN.
__device__ __forceinline__ float swiglu(float gate, float up, float limit) {
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : up;
    up = up < -limit ? -limit : up;
    return gate * sigmoid(gate) * up;
}

template <int F> __device__ __forceinline__ float dot_1(const Matrix &m, u32 row, const float *input) {
    const float *x[1] = {input};
    float4 sum[1] = {make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
    lane_dots<F, 1>(m, row, x, sum);
    return dot_total(sum[0]);
}

__device__ __noinline__ float dot_any(const Matrix &m, u32 row, const float *input) {
#define BODY(F) return dot_1<F>(m, row, input)
    FOR_FORMAT(m.format, BODY)
#undef BODY
}

// A warp computes one value of the inner vector of one expert.
extern "C" __global__ void __launch_bounds__(256) experts_in(const ExpertsArgs a) {
    enter();
    u32 r = blockIdx.z, k = blockIdx.y;
    u32 i = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (i >= a.inner) return;
    bool shared = k == a.used;
    u32 expert = shared ? 0 : a.picked[(u64)r * a.used + k];
    Matrix gate = shared ? a.shared_gate : member(a.gate, expert);
    Matrix up = shared ? a.shared_up : member(a.up, expert);
    const float *x = a.x + (u64)r * a.hidden;
    float g = dot_any(gate, i, x), u = dot_any(up, i, x);
    float weight = shared ? 1.0f : a.weights[(u64)r * a.used + k];
    float m = swiglu(g, u, shared ? a.shared_limit : a.limit) * weight;
    if (threadIdx.x % 32 == 0) a.middle[((u64)r * (a.used + 1) + k) * a.inner + i] = m;
}

// A warp computes one value of the output: the shared expert's, then those of the chosen in order.
extern "C" __global__ void __launch_bounds__(256) experts_out(const ExpertsArgs a) {
    enter();
    u32 r = blockIdx.y;
    u32 d = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (d >= a.hidden) return;
    const float *middle = a.middle + (u64)r * (a.used + 1) * a.inner;
    float y = dot_any(a.shared_down, d, middle + (u64)a.used * a.inner);
    for (u32 k = 0; k < a.used; k++) y += dot_any(member(a.down, a.picked[(u64)r * a.used + k]), d, middle + (u64)k * a.inner);
    if (threadIdx.x % 32 == 0) a.out[(u64)r * a.hidden + d] = y;
}
