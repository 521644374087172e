/* The C interface in C++: objects that release what they own, errors as exceptions. Decodes tokens
 * of one layer with a KV cache and compares them with attention over the whole sequence.
 *
 *   c++ -std=c++17 attention.cpp -o attention $(pkg-config --cflags --libs ropewalk)
 */
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include <ropewalk/ropewalk.h>

namespace rw {

struct error : std::runtime_error {
    rw_status status;
    error(rw_status status, const char *sentence) : std::runtime_error(sentence), status(status) {}
};

/* The library's objects are incomplete types: unique_ptr needs only their functions. */
struct destroy {
    void operator()(rw_context *context) const {
        rw_context_destroy(context);
    }
    void operator()(rw_rope *rope) const {
        rw_rope_destroy(rope);
    }
};

using rope_ptr = std::unique_ptr<rw_rope, destroy>;

class context {
  public:
    explicit context(rw_backend_kind backend) {
        rw_context_options options = {};
        options.backend = backend;
        rw_context *made = nullptr;
        rw_message why;
        rw_status status = rw_context_create(&options, &made, &why);
        if (status != RW_OK)
            throw error(status, why.text);
        handle_.reset(made);
    }

    rope_ptr rope(const rw_rope_options &options) {
        rw_rope *made = nullptr;
        check(rw_rope_create(handle_.get(), &options, &made));
        return rope_ptr(made);
    }

    template <typename Args>
    void run(rw_status (*operation)(rw_context *, const Args *), const Args &args) {
        check(operation(handle_.get(), &args));
    }

    template <typename Object, typename Args>
    void run(rw_status (*operation)(rw_context *, const Object *, const Args *),
             const Object *object, const Args &args) {
        check(operation(handle_.get(), object, &args));
    }

    void synchronize() {
        check(rw_synchronize(handle_.get()));
    }

  private:
    std::unique_ptr<rw_context, destroy> handle_;

    void check(rw_status status) const {
        if (status != RW_OK)
            throw error(status, rw_last_error(handle_.get()));
    }
};

/* f32 in host memory, row-major. */
class array {
  public:
    explicit array(std::array<int64_t, 4> shape)
        : shape_(shape), data_(shape[0] * shape[1] * shape[2] * shape[3]) {}

    operator rw_tensor() {
        return rw_tensor_contiguous(data_.data(), RW_F32, 4, shape_.data());
    }

    /* Tokens [begin, end) of a tensor [1, tokens, heads, width]. */
    rw_tensor tokens(int64_t begin, int64_t end) {
        rw_tensor part = *this;
        part.data = data_.data() + begin * part.stride[1];
        part.shape[1] = end - begin;
        return part;
    }

    std::vector<float> &values() {
        return data_;
    }

  private:
    std::array<int64_t, 4> shape_;
    std::vector<float> data_;
};

} // namespace rw

constexpr int64_t tokens = 33, heads = 8, kv_heads = 2, width = 64;

static rw::array random_array(int64_t count, unsigned seed) {
    rw::array made({1, tokens, count, width});
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    for (float &x : made.values())
        x = normal(engine);
    return made;
}

static float compare() {
    rw::context context(RW_BACKEND_CPU);
    rw_rope_options options = {};
    options.spec.head_dim = width;
    options.max_positions = tokens;
    rw::rope_ptr rope = context.rope(options);
    rw::array q = random_array(heads, 1), k = random_array(kv_heads, 2),
              v = random_array(kv_heads, 3), whole = random_array(heads, 4),
              one = random_array(heads, 5);

    rw_rope_args rotation = {};
    rotation.q = q;
    rotation.k = k;
    context.run(rw_rope_apply, rope.get(), rotation);

    rw_pattern causal = {};
    causal.causal = true;
    rw_attention_args args = {};
    args.q = q;
    args.k = k;
    args.v = v;
    args.out = whole;
    args.pattern = &causal;
    context.run(rw_attention, args);

    for (int64_t token = 0; token < tokens; token++) {
        args.q = q.tokens(token, token + 1);
        args.k = k.tokens(0, token + 1);
        args.v = v.tokens(0, token + 1);
        args.out = one.tokens(token, token + 1);
        context.run(rw_attention, args);
    }
    context.synchronize();

    float worst = 0;
    for (size_t i = 0; i < one.values().size(); i++)
        worst = std::max(worst, std::fabs(one.values()[i] - whole.values()[i]));
    return worst;
}

/* What is refused is an exception with the library's sentence. */
static void refuse() {
    rw::context context(RW_BACKEND_CPU);
    rw_attention_args args = {};
    try {
        context.run(rw_attention, args);
    } catch (const rw::error &refused) {
        std::printf("%s: %s\n", rw_status_name(refused.status), refused.what());
        return;
    }
    throw std::logic_error("attention without tensors was accepted");
}

int main() {
    try {
        float worst = compare();
        std::printf("token by token and at once: they differ by at most %.1e\n", worst);
        refuse();
        return worst <= 1e-5f ? 0 : 1;
    } catch (const std::exception &failure) {
        std::fprintf(stderr, "%s\n", failure.what());
        return 1;
    }
}
