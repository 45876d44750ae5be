/* uri.h: the server as people write it, and a URI as RFC 7252 section 6.4 takes it apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "command/uri.h"

static uri_t uri;

static const char *parse(const char *text)
{
    char *copy = strdup(text); /* so that the sanitizers watch its end */
    assert_non_null(copy);
    memset(&uri, 0x5a, sizeof uri);
    const char *problem = uri_parse(copy, &uri);
    free(copy);
    return problem;
}

/* Writes the options as "11:a 11: 15:b", one space before each. */
static const char *written_options(void)
{
    static char text[8 * URI_OPTIONS_SIZE];
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < uri.options_length; i += (size_t)uri.options[i + 1] + 2) {
        int length = uri.options[i + 1];
        assert_true(i + 2 + (size_t)length <= uri.options_length);
        used += (size_t)snprintf(text + used, sizeof text - used, " %d:%.*s", uri.options[i], length,
                                 (const char *)uri.options + i + 2);
    }
    return text;
}

static void expect(const char *text, bool coaps, const char *host, const char *port, const char *options)
{
    const char *problem = parse(text);
    if (problem != NULL)
        fail_msg("%s: %s", text, problem);
    if (uri.coaps != coaps || strcmp(uri.host, host) != 0 || strcmp(uri.port, port) != 0 ||
        strcmp(written_options(), options) != 0)
        fail_msg("%s: '%s' '%s' '%s'", text, uri.host, uri.port, written_options());
}

static void refuse(const char *text, const char *mention)
{
    const char *problem = parse(text);
    if (problem == NULL || strstr(problem, mention) == NULL)
        fail_msg("%s: '%s' is not said: %s", text, mention, problem != NULL ? problem : "taken");
}

static void without_a_scheme_it_is_a_host_as_it_stands(void **state)
{
    (void)state;
    expect("example.org", false, "example.org", "1234", "");
    expect("EXAMPLE.org:5684", false, "EXAMPLE.org", "5684", "");
    expect("2001:db8::1", false, "2001:db8::1", "1234", "");
    expect("[fe80::1%eth0]:80", false, "fe80::1%eth0", "80", "");
    expect("coaps:99", false, "coaps", "99", "");
    expect("a%41b", false, "a%41b", "1234", "");
}

static void dtls_has_host_and_port_alone(void **state)
{
    (void)state;
    expect("dtls://example.org", false, "example.org", "1234", "");
    expect("DTLS://example.org:99", false, "example.org", "99", "");
    expect("dtls://[::1]:99", false, "::1", "99", "");
    static const char *const more[] = {"dtls://a/", "dtls://a/b", "dtls://a?b", "dtls://a:1/", "dtls://a:1?"};
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        refuse(more[i], "path");
}

static void the_examples_of_rfc_7252_are_taken_apart_as_it_says(void **state)
{
    (void)state;
    /* Section 6.3. */
    expect("coaps://example.com:5684/~sensors/temp.xml", true, "example.com", "5684",
           " 11:~sensors 11:temp.xml");
    expect("coaps://EXAMPLE.com/%7Esensors/temp.xml", true, "example.com", "5684",
           " 11:~sensors 11:temp.xml");
    expect("coaps://EXAMPLE.com:/%7esensors/temp.xml", true, "example.com", "5684",
           " 11:~sensors 11:temp.xml");
    /* Appendix B. */
    expect("coaps://[2001:db8::2:1]/", true, "2001:db8::2:1", "5684", "");
    expect("coaps://EXAMPLE.net/", true, "example.net", "5684", "");
    expect("coaps://EXAMPLE.net/.well-known/core", true, "example.net", "5684", " 11:.well-known 11:core");
    expect("coaps://198.51.100.1:61616//%2F//?%2F%2F&?%26", true, "198.51.100.1", "61616",
           " 11: 11:/ 11: 11: 15:// 15:?&");
    expect("coaps://xn--18j4d.example/%E3%81%93%E3%82%93%E3%81%AB%E3%81%A1%E3%81%AF", true,
           "xn--18j4d.example", "5684", " 11:\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf");
    expect("coaps://example.net/%2F//?%2F%2F&?%26", true, "example.net", "5684", " 11:/ 11: 11: 15:// 15:?&");
}

static void the_scheme_is_known_in_either_case(void **state)
{
    (void)state;
    expect("COAPS://a", true, "a", "5684", "");
    expect("CoapS://a", true, "a", "5684", "");
}

static void any_other_scheme_is_refused_and_coaps_named(void **state)
{
    (void)state;
    static const char *const others[] = {"http://a", "https://a",      "coap://a",    "COAP://a",
                                         "://a",     "coaps+tcp://a",  "coap+ws://a", "coapss://a",
                                         "udp://a",  "xcoaps://a:1/b", " coaps://a"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        refuse(others[i], "coaps://");
    refuse("coap://a", "encrypted");
    refuse("http://a", "unknown scheme");
}

static void an_empty_path_and_a_slash_are_no_option(void **state)
{
    (void)state;
    expect("coaps://a", true, "a", "5684", "");
    expect("coaps://a/", true, "a", "5684", "");
    expect("coaps://a:7/", true, "a", "7", "");
    expect("coaps://a?q", true, "a", "5684", " 15:q");
    expect("coaps://a/?q", true, "a", "5684", " 15:q");
}

static void empty_segments_are_kept(void **state)
{
    (void)state;
    expect("coaps://h/a//b", true, "h", "5684", " 11:a 11: 11:b");
    expect("coaps://h/a/", true, "h", "5684", " 11:a 11:");
    expect("coaps://h//", true, "h", "5684", " 11: 11:");
    expect("coaps://h//a", true, "h", "5684", " 11: 11:a");
    expect("coaps://h///", true, "h", "5684", " 11: 11: 11:");
}

static void dot_segments_are_resolved_and_never_sent(void **state)
{
    (void)state;
    expect("coaps://h/a/./b", true, "h", "5684", " 11:a 11:b");
    expect("coaps://h/a/../b", true, "h", "5684", " 11:b");
    expect("coaps://h/a/.", true, "h", "5684", " 11:a 11:");
    expect("coaps://h/a/b/..", true, "h", "5684", " 11:a 11:");
    expect("coaps://h/a/..", true, "h", "5684", "");
    expect("coaps://h/..", true, "h", "5684", "");
    expect("coaps://h/../../a", true, "h", "5684", " 11:a");
    expect("coaps://h/.", true, "h", "5684", "");
    expect("coaps://h/a//..", true, "h", "5684", " 11:a 11:");
    expect("coaps://h/%2E/%2e%2E/a", true, "h", "5684", " 11:a");
    expect("coaps://h/.../..a/a.", true, "h", "5684", " 11:... 11:..a 11:a.");
}

static void a_query_has_an_option_for_each_part(void **state)
{
    (void)state;
    expect("coaps://h/a?b=1&c=2", true, "h", "5684", " 11:a 15:b=1 15:c=2");
    expect("coaps://h?a&&b&", true, "h", "5684", " 15:a 15: 15:b 15:");
    expect("coaps://h?", true, "h", "5684", " 15:");
    expect("coaps://h?/..?@:", true, "h", "5684", " 15:/..?@:");
    expect("coaps://h?u=http://x", true, "h", "5684", " 15:u=http://x");
}

static void percent_encoding_is_undone_after_the_parts_are_found(void **state)
{
    (void)state;
    expect("coaps://h/%2f%3F%23/b?%26&%3d", true, "h", "5684", " 11:/?# 11:b 15:& 15:=");
    expect("coaps://h/%25%34%31", true, "h", "5684", " 11:%41");
    expect("coaps://h/%01%7f%fF", true, "h", "5684", " 11:\x01\x7f\xff");
    expect("coaps://h/+", true, "h", "5684", " 11:+");
}

static void a_host_is_decoded_and_lowered(void **state)
{
    (void)state;
    expect("coaps://EX%41mple%2Dnet.Org:9", true, "example-net.org", "9", "");
    expect("coaps://a_b~c!", true, "a_b~c!", "5684", "");
    refuse("coaps://%00", "NUL");
    refuse("coaps://a%0", "%");
}

static void an_address_in_brackets_may_have_a_zone(void **state)
{
    (void)state;
    expect("coaps://[::1]", true, "::1", "5684", "");
    expect("coaps://[fe80::1%25eth0]:9/a", true, "fe80::1%eth0", "9", " 11:a");
    expect("coaps://[fe80::1%eth0]", true, "fe80::1%eth0", "5684", "");
    expect("coaps://[::ffff:192.0.2.7]", true, "::ffff:192.0.2.7", "5684", "");
}

static void a_bad_host_or_port_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "coaps://",
        "coaps:///a",
        "coaps://?a",
        "coaps://:5684",
        "coaps://::1",
        "coaps://a:b:1",
        "coaps://[::1",
        "coaps://[::1]5684",
        "coaps://[]",
        "coaps://[a]",
        "coaps://a:0",
        "coaps://a:-1",
        "coaps://a:65536",
        "coaps://a:1x",
        "coaps://a:+1/b",
        "coaps://a b",
        "coaps://a\\b",
        "coaps://a:%31",
        "coaps://[::1]x",
        "coaps://[::1]:x",
        "coaps://\xc3\xa5",
        "coaps://a[b]",
        "coaps://a:9999999999999999999999999",
        "dtls://",
        "dtls://:1",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse(bad[i], "");
    refuse("coaps:///a", "no host");
    refuse("coaps://a:0", "port");
    refuse("coaps://::1", "[IPV6]");
}

static void a_user_part_is_refused(void **state)
{
    (void)state;
    refuse("coaps://me@host/", "user");
    refuse("coaps://me:secret@host:1/a", "user");
    refuse("coaps://@host", "user");
    refuse("dtls://me@host", "user");
    expect("coaps://h/me@host", true, "h", "5684", " 11:me@host");
    expect("coaps://h?me@host", true, "h", "5684", " 15:me@host");
}

static void a_fragment_is_refused(void **state)
{
    (void)state;
    refuse("coaps://h#a", "fragment");
    refuse("coaps://h/a#", "fragment");
    refuse("coaps://h/a?b#c", "fragment");
    refuse("dtls://h#a", "fragment");
    expect("coaps://h/%23", true, "h", "5684", " 11:#");
}

static void a_path_without_a_scheme_is_refused(void **state)
{
    (void)state;
    refuse("h/a", "coaps://");
    refuse("h:1/a", "coaps://");
    refuse("h?a", "coaps://");
    refuse("h#a", "coaps://");
    refuse("me@h", "HOST");
    refuse("/a", "HOST");
}

static void a_bad_percent_escape_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"%", "%4", "%4g", "%g4", "a%", "%%41", "% 41", "%+1", "%-1", "a%2/b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "coaps://h/%s", bad[i]);
        refuse(text, "two hex digits");
        snprintf(text, sizeof text, "coaps://h?%s", bad[i]);
        refuse(text, "two hex digits");
        snprintf(text, sizeof text, "coaps://h?%s&b", bad[i]);
        refuse(text, "two hex digits");
    }
}

static void a_nul_is_refused(void **state)
{
    (void)state;
    refuse("coaps://h/a%00", "NUL");
    refuse("coaps://h?%00", "NUL");
}

static void what_a_uri_cannot_have_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {" ", "\t", "\n", "\x7f", "\"", "<", ">", "\\",
                                      "^", "`",  "{",  "|",    "}",  "[", "]", "\xc3\xa5"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "coaps://h/a%s", bad[i]);
        refuse(text, "character");
        snprintf(text, sizeof text, "coaps://h/a?%sb", bad[i]);
        refuse(text, "character");
    }
}

/* Writes `count` times the same. */
static char *repeat(char *end, const char *text, size_t count)
{
    for (; count > 0; count--)
        end += sprintf(end, "%s", text);
    return end;
}

static void a_part_may_have_255_bytes_and_no_more(void **state)
{
    (void)state;
    static const char *const starts[] = {"coaps://h/", "coaps://h/a/", "coaps://h?", "coaps://h?a&"};
    static const char *const bytes[] = {"x", "%58"};
    char text[2048];
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        for (size_t j = 0; j < sizeof bytes / sizeof bytes[0]; j++) {
            char *end = repeat(text + sprintf(text, "%s", starts[i]), bytes[j], 255);
            assert_null(parse(text));
            assert_true(uri.options_length >= 257);
            assert_int_equal(uri.options[uri.options_length - 256], 255);
            repeat(end, bytes[j], 1);
            refuse(text, strchr(starts[i], '?') != NULL ? "query part of more than 255 bytes"
                                                        : "path segment of more than 255 bytes");
        }
    }
}

static void a_host_may_have_255_characters_and_no_more(void **state)
{
    (void)state;
    char text[2048];
    char *end = repeat(text + sprintf(text, "coaps://"), "%61", 255);
    assert_null(parse(text));
    assert_int_equal(strlen(uri.host), 255);
    repeat(end, "a", 1);
    refuse(text, "255");
    end = repeat(text + sprintf(text, "coaps://"), "a", 300);
    sprintf(end, "/b");
    refuse(text, "host name");
}

static void path_and_query_may_have_1024_bytes_and_no_more(void **state)
{
    (void)state;
    char text[4096];
    char *end = repeat(text + sprintf(text, "coaps://h"), "/abcdef", 127); /* 8 each */
    repeat(end, "?abcdef", 1);
    assert_null(parse(text));
    assert_int_equal(uri.options_length, 1024);
    repeat(end, "?abcdefg", 1);
    refuse(text, "1024");
    repeat(end, "/abcdefg", 1);
    refuse(text, "1024");
    repeat(end, "?abcdef&", 1);
    refuse(text, "1024");
    repeat(end, "/abcdef/", 1);
    refuse(text, "1024");
    repeat(text + sprintf(text, "coaps://h"), "/", 513);
    refuse(text, "1024");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_scheme_it_is_a_host_as_it_stands),
        cmocka_unit_test(dtls_has_host_and_port_alone),
        cmocka_unit_test(the_examples_of_rfc_7252_are_taken_apart_as_it_says),
        cmocka_unit_test(the_scheme_is_known_in_either_case),
        cmocka_unit_test(any_other_scheme_is_refused_and_coaps_named),
        cmocka_unit_test(an_empty_path_and_a_slash_are_no_option),
        cmocka_unit_test(empty_segments_are_kept),
        cmocka_unit_test(dot_segments_are_resolved_and_never_sent),
        cmocka_unit_test(a_query_has_an_option_for_each_part),
        cmocka_unit_test(percent_encoding_is_undone_after_the_parts_are_found),
        cmocka_unit_test(a_host_is_decoded_and_lowered),
        cmocka_unit_test(an_address_in_brackets_may_have_a_zone),
        cmocka_unit_test(a_bad_host_or_port_is_refused),
        cmocka_unit_test(a_user_part_is_refused),
        cmocka_unit_test(a_fragment_is_refused),
        cmocka_unit_test(a_path_without_a_scheme_is_refused),
        cmocka_unit_test(a_bad_percent_escape_is_refused),
        cmocka_unit_test(a_nul_is_refused),
        cmocka_unit_test(what_a_uri_cannot_have_is_refused),
        cmocka_unit_test(a_part_may_have_255_bytes_and_no_more),
        cmocka_unit_test(a_host_may_have_255_characters_and_no_more),
        cmocka_unit_test(path_and_query_may_have_1024_bytes_and_no_more),
    };
    return cmocka_run_group_tests_name("uri", tests, NULL, NULL);
}
