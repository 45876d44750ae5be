#include "record.h"

enum {
    TYPE_HANDSHAKE = 22,
    TYPE_CID = 25,
    CLIENT_HELLO = 1,
    /* Where things are in a header: type, version, epoch, sequence number, connection id if any, length. */
    EPOCH = 3,
    SEQUENCE_NUMBER = 5,
    CID = 11,
    HEADER_LENGTH = 13, /* without a connection id */
    TAIL_LENGTH = 8
};

static unsigned long long big_endian(const unsigned char *bytes, size_t length)
{
    unsigned long long number = 0;
    while (length-- > 0)
        number = number << 8 | *bytes++;
    return number;
}

size_t record_length(const unsigned char *bytes, size_t left, size_t cid_length)
{
    size_t header = HEADER_LENGTH + (left > 0 && bytes[0] == TYPE_CID ? cid_length : 0);
    if (left <= header)
        return left;
    size_t length = header + (size_t)big_endian(bytes + header - 2, 2);
    return length < left ? length : left;
}

const unsigned char *record_cid(const unsigned char *bytes, size_t length, size_t cid_length)
{
    return cid_length > 0 && length >= CID + cid_length && bytes[0] == TYPE_CID ? bytes + CID : NULL;
}

bool record_is_client_hello(const unsigned char *bytes, size_t length)
{
    return length > HEADER_LENGTH && bytes[0] == TYPE_HANDSHAKE && big_endian(bytes + EPOCH, 2) == 0 &&
           bytes[HEADER_LENGTH] == CLIENT_HELLO;
}

void record_log(FILE *file, const char *address, unsigned long association, const unsigned char *record,
                size_t length)
{
    if (length < HEADER_LENGTH)
        return;
    fprintf(file, "%s %u %llu %llu %zu %lu ", address, record[0], big_endian(record + EPOCH, 2),
            big_endian(record + SEQUENCE_NUMBER, 6), length, association);
    for (size_t i = length - TAIL_LENGTH; i < length; i++)
        fprintf(file, "%02x", record[i]);
    fputc('\n', file);
}
