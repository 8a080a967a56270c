/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of the library's own. */
#ifndef SYS_THREAD_H
#define SYS_THREAD_H

#include <pthread.h>

/* Starts one that takes no signals: those are the host program's. 0 or a negative errno. */
int thread_start(pthread_t *ret_thread, void *(*fn)(void *context), void *context);

#endif
