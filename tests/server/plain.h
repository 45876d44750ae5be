/* The plain form: what a device sends is its payload, and is answered with all that waits in its outbox. */
#ifndef PLAIN_H
#define PLAIN_H

#include "peer.h"

extern const struct form plain_form;

#endif
