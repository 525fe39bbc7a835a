// Several matrices times vectors in one launch. A warp takes a row of a matrix.

struct Product {
    Matrix m;
    const float *x;
    float *y;
    u32 x_stride, y_stride; // from one row of the batch to the next
    u32 group_rows;         // so many rows of the matrix share an input,
    u32 group_stride;       // and the next ones find theirs so many values on
    u32 first_block;
    u32 unused;
};

struct ProductsArgs {
    const Product *products;
    u32 count;
    u32 rows; // of the batch
};

template <int F, int T> __device__ __forceinline__ void product_row(const Product &p, u32 r, u32 first, u32 rows) {
    const float *x[T];
    float4 sum[T];
#pragma unroll
    for (int t = 0; t < T; t++) {
        x[t] = p.x + (u64)min(first + t, rows - 1) * p.x_stride + (u64)(r / p.group_rows) * p.group_stride;
        sum[t] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    lane_dots<F, T>(p.m, r, x, sum);
#pragma unroll
    for (int t = 0; t < T; t++) {
        float y = dot_total(sum[t]);
        if (threadIdx.x % 32 == 0 && first + t < rows) p.y[(u64)(first + t) * p.y_stride + r] = y;
    }
}

template <int T> __device__ __forceinline__ void products_block(const ProductsArgs &a) {
    enter();
    u32 i = 0;
    while (i + 1 < a.count && a.products[i + 1].first_block <= blockIdx.x) i++;
    const Product p = a.products[i];
    u32 r = (blockIdx.x - p.first_block) * (blockDim.x / 32) + threadIdx.x / 32;
    if (r >= p.m.rows) return;
#define BODY(F) product_row<F, T>(p, r, blockIdx.y *T, a.rows)
    FOR_FORMAT(p.m.format, BODY)
#undef BODY
}

extern "C" __global__ void THREADS(256) products_1(const ProductsArgs a) { products_block<1>(a); }
extern "C" __global__ void __launch_bounds__(256) products_8(const ProductsArgs a) { products_block<8>(a); }
