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

// One warp to a row of the round.
extern "C" __global__ void __launch_bounds__(32) route(const RouteArgs a) {
    extern __shared__ float scores[]; // and, behind them, biased as ordered numbers
    u32 *keys = (u32 *)(scores + a.experts);
    u32 r = blockIdx.x, lane = threadIdx.x;
    for (u32 e = lane; e < a.experts; e += 32) {
        float s = sqrtf(softplus(a.logits[(u64)r * a.experts + e]));
        scores[e] = s;
        if (!a.table) keys[e] = ordered(s + a.bias[e]);
    }
    __syncwarp();
    u32 *picked = a.picked + (u64)r * a.used;
    float sum = 0.0f;
    for (u32 k = 0; k < a.used; k++) {
        u32 expert;
        if (a.table) {
            expert = a.table[(u64)a.rows[r].token * a.used + k];
        } else {
            // The largest key, the lowest index of equal ones. Keys of finite scores are above zero,
            // which marks those that are taken.
            u64 best = 0;
            for (u32 e = lane; e < a.experts; e += 32) {
                u64 candidate = (u64)keys[e] << 32 | (FULL - e);
                best = candidate > best ? candidate : best;
            }
#pragma unroll
            for (int o = 16; o; o >>= 1) {
                u64 other = __shfl_xor_sync(FULL, best, o);
                best = other > best ? other : best;
            }
            expert = FULL - (u32)best;
            __syncwarp();
            if (lane == 0) keys[expert] = 0;
            __syncwarp();
        }
        if (lane == 0) picked[k] = expert;
        sum += scores[expert];
    }
    sum = sum < 6.103515625e-5f ? 6.103515625e-5f : sum;
    __syncwarp();
    for (u32 k = lane; k < a.used; k += 32) a.weights[(u64)r * a.used + k] = scores[picked[k]] / sum * a.scale;
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
    u32 r = blockIdx.y;
    u32 d = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (d >= a.hidden) return;
    const float *middle = a.middle + (u64)r * (a.used + 1) * a.inner;
    float y = dot_any(a.shared_down, d, middle + (u64)a.used * a.inner);
    for (u32 k = 0; k < a.used; k++) y += dot_any(member(a.down, a.picked[(u64)r * a.used + k]), d, middle + (u64)k * a.inner);
    if (threadIdx.x % 32 == 0) a.out[(u64)r * a.hidden + d] = y;
}
