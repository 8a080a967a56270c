/* SPDX-License-Identifier: Apache-2.0 */
/* A stage that does nothing, and whose table is right but for what the build defines. */
#include <cairn/stage.h>

static int abi_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	(void)reterr;
	*(const struct cairn_stage_host **)self = env->host;
	return 0;
}

static void abi_close(void *self)
{
	(void)self;
}

static __attribute__((unused)) void abi_submit(void *self, struct cairn_io *io, void *scratch)
{
	(void)scratch;
	(*(const struct cairn_stage_host **)self)->forward(io);
}

static void abi_done(void *self, struct cairn_io *io, void *scratch)
{
	(void)scratch;
	(*(const struct cairn_stage_host **)self)->complete(io);
}

#ifdef ABI_SYMBOL
#define cairn_stage another_symbol
#endif

extern const struct cairn_stage_ops cairn_stage;
CAIRN_API const struct cairn_stage_ops cairn_stage = {
#ifdef ABI_MAJOR
	.abi_major = CAIRN_STAGE_ABI_MAJOR + 8,
#else
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
#endif
#if defined(ABI_OLDER) || defined(ABI_OLDER_SHORT)
	.abi_minor = CAIRN_STAGE_ABI_MINOR - 1,
#elif defined(ABI_MINOR)
	.abi_minor = CAIRN_STAGE_ABI_MINOR + 1,
#else
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
#endif
#ifdef ABI_SIZE
	.size = 8,
#elif defined(ABI_OLDER)
	.size = offsetof(struct cairn_stage_ops, check_values),
#elif defined(ABI_OLDER_SHORT)
	.size = offsetof(struct cairn_stage_ops, identify),
#else
	.size = sizeof(struct cairn_stage_ops),
#endif
#ifdef ABI_NAME
	.name = "someone_else",
#else
	.name = NAME,
#endif
#ifdef ABI_TIER
	.flags = CAIRN_STAGE_TIER,
#endif
	.summary = "for tests: lets everything pass",
	.instance_bytes = sizeof(void *),
	.open = abi_open,
	.close = abi_close,
#if defined(ABI_OLDER) || defined(ABI_OLDER_SHORT)
	/* Behind the end of its table: whatever lies there is not called. */
	.check_values = (int (*)(const struct cairn_stage_env *, struct cairn_error *))8,
#endif
#ifdef ABI_SUBMIT
	.submit = NULL,
#else
	.submit = abi_submit,
#endif
	.done = abi_done,
};
