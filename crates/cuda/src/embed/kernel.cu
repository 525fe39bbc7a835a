// Every stream of a row starts as the embedding of its token.

struct EmbedArgs {
    Matrix m;
    const Row *rows;
    float *streams;
    u32 count; // of streams
    u32 unused;
};

template <int F> __device__ __forceinline__ void embed_row(const EmbedArgs &a, u32 c) {
    float4 v = weight4<F>(a.m, a.rows[blockIdx.y].token, c);
    for (u32 s = 0; s < a.count; s++) *(float4 *)(a.streams + ((u64)blockIdx.y * a.count + s) * a.m.cols + c) = v;
}

extern "C" __global__ void embed(const EmbedArgs a) {
    enter();
    u32 c = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (c >= a.m.cols) return;
#define BODY(F) embed_row<F>(a, c)
    FOR_FORMAT(a.m.format, BODY)
#undef BODY
}
