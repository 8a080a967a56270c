/* SPDX-License-Identifier: Apache-2.0 */
/* What a thread sends to a reactor. Intrusive: in the part, the io, the light reactor, the job. */
#ifndef CORE_MESSAGE_H
#define CORE_MESSAGE_H

#include "base/ring.h"

enum message_kind {
	MESSAGE_NONE,
	MESSAGE_PART,
	MESSAGE_CANCEL,
	MESSAGE_RESUME,
	MESSAGE_ADOPT,
	MESSAGE_JOB,
};

struct message {
	struct ring_node node;
	enum message_kind kind;
};

#endif
