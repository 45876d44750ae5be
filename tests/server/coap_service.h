/* The CoAP form (RFC 7252, 7959): messages, and the rules of answering them. What a request does is in
 * coap_resource.h. Prints, besides the events of service.h, one line for each request, duplicates included:
 *
 *     coap DEVICE CON|NON GET|POST|PUT|0.CC ID TOKEN /PATH
 *     duplicate DEVICE ID     answered as before, and not acted on
 *     ping DEVICE ID          an empty confirmable message
 *     acknowledged DEVICE ID  a separate response of ours
 *     reset DEVICE ID         a message of ours
 *     malformed DEVICE BYTES
 *
 * TOKEN is in hex, "-" where it is empty.
 */
#ifndef COAP_SERVICE_H
#define COAP_SERVICE_H

#include "peer.h"

extern const struct form coap_form;

#endif
