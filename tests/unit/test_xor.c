/* SPDX-License-Identifier: Apache-2.0 */
/* The skeleton stage of examples/stage, as a module, over a null tier. */
#include "test_host.h"

#include <dlfcn.h>
#include <errno.h>

#include "stages/stages.h"

static const struct cairn_stage_ops *xor_ops;
static struct test_host *host;
static struct test_ns *ns;

static void setup(const char *options)
{
	host = test_host_new();
	test_host_push(host, xor_ops, options);
	test_host_push(host, &cairn_stage_null, NULL);
	test_host_open(host);
	ns = test_ns_new(host, "ns", 0, 0);
}

static void teardown(void)
{
	test_ns_free(ns);
	test_host_free(host);
}

static void fill(uint8_t *data, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++)
		data[i] = (uint8_t)(i * 31 + (i >> 8));
}

static void test_round_trip(void **state)
{
	uint8_t data[3][500], copy[3][500], back[500];
	struct test_io *tio;
	uint32_t i;

	(void)state;
	setup("byte=17");
	fill(data[0], sizeof(data));
	memcpy(copy, data, sizeof(data));
	tio = test_io_new(host, CAIRN_OP_DUMP, ns, test_key(1));
	tio->io.shard_count = 3;
	tio->io.shard_bytes = 500;
	for (i = 0; i < 3; i++)
		test_io_part(tio, i, 0, data[i], 500);
	assert_int_equal(test_io_run(tio), 0);
	assert_int_equal(tio->forwards, 1);
	for (i = 0; i < 3; i++) {
		assert_int_equal(tio->parts[i].meta_length, 0);
		assert_ptr_equal(tio->parts[i].iov[0].iov_base, data[i]);
	}
	test_io_free(tio);
	assert_memory_equal(data, copy, sizeof(data)); /* a dump only reads */
	for (i = 0; i < 3; i++) {
		assert_int_equal(test_load(ns, test_key(1), i, 0, back, 500), 0);
		assert_memory_equal(back, data[i], 500);
		assert_int_equal(test_load(ns, test_key(1), i, 33, back, 100), 0);
		assert_memory_equal(back, data[i] + 33, 100);
	}
	assert_int_equal(test_load(ns, test_key(2), 0, 0, back, 1), -ENOENT);
	teardown();
}

/* More than one buffer can hold: several rounds; and no buffer free: it waits. */
static void test_rounds_and_waiting(void **state)
{
	uint8_t data[8][4096], back[4096];
	struct test_io *tios[2];
	uint32_t i, n;

	(void)state;
	setup(NULL);
	host->host.buffer_max = 3 * 4096;
	host->buffers_max = 1;
	fill(data[0], sizeof(data));
	for (n = 0; n < 2; n++) {
		tios[n] = test_io_new(host, CAIRN_OP_DUMP, ns, test_key(n));
		tios[n]->io.shard_count = 8;
		tios[n]->io.shard_bytes = 4096;
		for (i = 0; i < 8; i++)
			test_io_part(tios[n], i, 0, data[i], 4096);
	}
	host->buffers_out = 1; /* somebody else has it */
	test_io_start(tios[0]);
	test_io_start(tios[1]);
	assert_false(tios[0]->completed || tios[1]->completed);
	assert_false(test_host_step(host));
	host->buffers_out = 0;
	tios[0]->resume = true;
	tios[0]->wants_buffer = false;
	for (n = 0; n < 2; n++) {
		assert_int_equal(test_io_run(tios[n]), 0);
		assert_int_equal(tios[n]->forwards, 3);
		test_io_free(tios[n]);
		for (i = 0; i < 8; i++) {
			assert_int_equal(test_load(ns, test_key(n), i, 0, back, 4096), 0);
			assert_memory_equal(back, data[i], 4096);
		}
	}
	assert_int_equal(test_dump(ns, test_key(9), 0, 1, 3 * 4096 + 1, data, 3 * 4096 + 1),
			 -EFBIG);
	teardown();
}

/* Two of them: each takes its own metadata off. Another byte is a miss. */
static void test_stacked(void **state)
{
	uint8_t data[100], back[100];
	struct test_io *tio;

	(void)state;
	host = test_host_new();
	test_host_push(host, xor_ops, "byte=1");
	test_host_push(host, xor_ops, "byte=2");
	test_host_push(host, &cairn_stage_null, NULL);
	test_host_open(host);
	ns = test_ns_new(host, "ns", 0, 0);
	fill(data, sizeof(data));
	assert_int_equal(test_dump(ns, test_key(1), 0, 1, 100, data, 100), 0);
	assert_int_equal(test_load(ns, test_key(1), 0, 0, back, 100), 0);
	assert_memory_equal(back, data, 100);
	tio = test_io_new(host, CAIRN_OP_DESCRIBE, ns, test_key(1));
	test_io_part(tio, 0, 0, NULL, 0);
	assert_int_equal(test_io_run(tio), 0);
	assert_int_equal(tio->parts[0].meta_length, 0);
	assert_int_equal(tio->parts[0].raw_length, 100);
	test_io_free(tio);
	/* Straight into the lower one: the upper one's metadata lacks. */
	tio = test_io_new(host, CAIRN_OP_DUMP, ns, test_key(2));
	tio->io.shard_count = 1;
	tio->io.shard_bytes = 100;
	test_io_part(tio, 0, 0, data, 100);
	memset(tio->scratch[0], 0, xor_ops->io_bytes);
	memset(tio->scratch[1], 0, xor_ops->io_bytes);
	tio->io.level = 1;
	tio->started = true;
	host->levels[1].ops->submit(host->levels[1].self, &tio->io, tio->scratch[1]);
	/* The upper one's done() sees an io that it never had: nothing of it is changed. */
	assert_true(tio->completed);
	test_io_free(tio);
	assert_int_equal(test_load(ns, test_key(2), 0, 0, back, 100), -EBADMSG);
	teardown();
}

static int load_module(void **state)
{
	void *module = dlopen(getenv("STAGE_XOR"), RTLD_NOW | RTLD_LOCAL);

	(void)state;
	if (!module)
		fail_msg("%s", dlerror());
	xor_ops = (const struct cairn_stage_ops *)dlsym(module, "cairn_stage");
	assert_non_null(xor_ops);
	assert_int_equal(xor_ops->size, sizeof(*xor_ops));
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_rounds_and_waiting),
		cmocka_unit_test(test_stacked),
	};

	return cmocka_run_group_tests(tests, load_module, NULL);
}
