/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/thread.h"

#include <signal.h>

int thread_start(pthread_t *ret_thread, void *(*fn)(void *context), void *context)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(ret_thread, NULL, fn, context);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -rc;
}
