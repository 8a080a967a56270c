/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: every call returns 0 or a count, else a negative errno value with
 * one meaning each.
 *
 *   -ENOENT      absent
 *   -EBADMSG     a checksum or the full key did not match: treat as absent
 *   -EAGAIN      no task slot now; try again after a completion
 *   -ETIMEDOUT   a wait: the task runs on; an xfer: it is over
 *   -EINVAL      an argument
 *   -EIO         the device
 *   -EFBIG       larger than the tier can hold
 *   -ESTALE      replaced under us (a partial block was swept away)
 *   -EPROTO      ABI or format version
 *   -EOPNOTSUPP  this pipeline cannot
 *   -ENOSPC      not taken: no room even after eviction, or declined by policy
 *   -EBUSY       in use: a store by another process or handle, its queues or a
 *                close; a queue by its tasks or a drain
 *   -EOWNERDEAD  a child after a fork: the store belongs to the parent
 *   -ECANCELED   cancelled, or the store is closing
 *   -ENOMEM      memory could not be had: at open, or for the digest of a key
 *
 * Calls of the control plane also fill a struct cairn_error, which the caller
 * keeps on its stack; NULL is allowed where one is taken. The data path never
 * formats text.
 */
#ifndef CAIRN_ERROR_H
#define CAIRN_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CAIRN_API __attribute__((visibility("default")))
#else
#define CAIRN_API
#endif

#define CAIRN_ERROR_TEXT_MAX 480

struct cairn_error {
	int code;			 /* the negative errno, or 0 */
	int line, column;		 /* in a pipeline's text, from 1; else 0 */
	char text[CAIRN_ERROR_TEXT_MAX]; /* one line, no newline: what, where, what is right */
};

/*
 * The one-meaning text of a code above, for example "absent" for -ENOENT.
 * Any thread; the string is static. Unknown codes give "unknown error".
 */
CAIRN_API const char *cairn_strerror(int code);

/* The library's version, "MAJOR.MINOR.PATCH". Any thread; static. */
CAIRN_API const char *cairn_version(void);

#ifdef __cplusplus
}
#endif
#endif
