/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/store.h"

int fail(struct cairn_error *reterr, int code, const char *format, ...)
{
	va_list args;

	if (!reterr)
		return code;
	reterr->code = code;
	reterr->line = 0;
	reterr->column = 0;
	va_start(args, format);
	vsnprintf(reterr->text, sizeof(reterr->text), format, args);
	va_end(args);
	return code;
}

const char *cairn_strerror(int code)
{
	static const struct {
		int code;
		const char *text;
	} texts[] = {
		{0, "done"},
		{CAIRN_PRESENT, "already present"},
		{-ENOENT, "absent"},
		{-EBADMSG, "damaged: a checksum or the key does not match"},
		{-EAGAIN, "no task slot now"},
		{-ETIMEDOUT, "the deadline passed"},
		{-EINVAL, "a bad argument"},
		{-EIO, "the device failed"},
		{-EFBIG, "larger than the tier can hold"},
		{-ESTALE, "replaced under us"},
		{-EPROTO, "another ABI or format version"},
		{-EOPNOTSUPP, "this pipeline cannot"},
		{-ENOSPC, "no room, or declined by policy"},
		{-EBUSY, "in use, or owned by another process"},
		{-EOWNERDEAD, "the store belongs to the parent process"},
		{-ECANCELED, "cancelled, or the store is closing"},
		{-ENOMEM, "no memory"},
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (texts[i].code == code)
			return texts[i].text;
	return "unknown error";
}

const char *cairn_version(void)
{
	return CAIRN_VERSION;
}
