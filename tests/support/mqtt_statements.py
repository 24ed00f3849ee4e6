"""The numbered statements of both MQTT standards (3.1.1 and 5, appendix B of each), and what proves each of them here.

A line is: numbers | how | what. How is one of

    row     the rows of tests/unit/ingest/test_mqtt_musts.py in which a client breaks it
    test    module::function below tests/unit/ingest/ or tests/, where what we do is more than to refuse
    client  it binds clients alone, and a server cannot see it broken
    none    it binds servers that do what this listener does not, with the reason
"""

from __future__ import annotations

import re
from typing import NamedTuple

# as the appendices list them; 3.1.1 prints 3.8.3-4 as “3-8.3-4”, MQTT 5 4.2.0-1 as “4.2-1”
NUMBERS: dict[int, str] = {
    4: """
    1.5.3-1..3 2.2.2-1..2 2.3.1-1..7 3.1.0-1..2 3.1.2-1..24 3.1.3-1..11 3.1.4-1..5 3.2.0-1 3.2.2-1..6 3.3.1-1..12
    3.3.2-1..3 3.3.4-1 3.3.5-1..2 3.6.1-1 3.8.1-1 3.8.3-1..4 3.8.4-1..6 3.9.3-1..2 3.10.1-1 3.10.3-1..2 3.10.4-1..6
    3.12.4-1 3.14.1-1 3.14.4-1..3 4.1.0-1..2 4.3.1-1 4.3.2-1..2 4.3.3-1..2 4.4.0-1 4.5.0-1..2 4.6.0-1..6 4.7.1-1..3
    4.7.2-1 4.7.3-1..4 4.8.0-1..2 6.0.0-1..4 7.0.0-1..2 7.1.1-1..2 7.1.2-1..2
    """,
    5: """
    1.5.4-1..3 1.5.5-1 1.5.7-1 2.1.3-1 2.2.1-2..6 2.2.2-1 3.1.0-1..2 3.1.2-1..30 3.1.3-1..12 3.1.4-1..6 3.2.0-1..2
    3.2.2-1..22 3.3.1-1..13 3.3.2-1..20 3.3.4-1..10 3.4.2-1..3 3.5.2-1..3 3.6.1-1 3.6.2-1..3 3.7.2-1..3 3.8.1-1
    3.8.3-1..5 3.8.4-1..8 3.9.2-1..2 3.9.3-1..2 3.10.1-1 3.10.3-1..2 3.10.4-1..6 3.11.2-1..2 3.11.3-1..2 3.12.4-1
    3.14.0-1 3.14.1-1 3.14.2-1..4 3.14.4-1..3 3.15.1-1 3.15.2-1..3 4.1.0-1..2 4.2.0-1 4.3.1-1 4.3.2-1..5 4.3.3-1..13
    4.4.0-1..2 4.5.0-1..2 4.6.0-1..6 4.7.0-1 4.7.1-1..2 4.7.2-1 4.7.3-1..4 4.8.2-1..6 4.9.0-1..3 4.12.0-1..7
    4.12.1-1..2 4.13.1-1 4.13.2-1 6.0.0-1..4
    """,
}

_STATEMENTS_4 = """
1.5.3-1 | row | client id not UTF-8; topic not UTF-8; filter not UTF-8
1.5.3-2 | row | client id with NUL; topic with NUL; filter with NUL
1.5.3-3 | test | test_mqtt_statements::test_a_byte_order_mark_is_a_character
2.2.2-1, 2.2.2-2 | row | CONNECT with flags; PUBREL without its flag; PINGREQ with flags; DISCONNECT with flags
2.3.1-1 | row | packet identifier 0; no packet identifier; SUBSCRIBE with identifier 0; UNSUBSCRIBE with identifier 0
2.3.1-2, 2.3.1-3 | client | a client numbers its own packets; one that is used again is a new message or a repeat
2.3.1-4 | none | the listener sends no message with QoS 1 or 2
2.3.1-5 | test | test_mqtt_packets::test_publishes_that_are_none
2.3.1-6 | test | test_mqtt_packets::test_answers_byte_by_byte
2.3.1-7 | test | test_mqtt_session::test_whole_byte_by_byte_and_in_every_two_halves
3.1.0-1 | row | PUBLISH first
3.1.0-2 | row | a second CONNECT
3.1.2-1 | row | protocol name
3.1.2-2 | test | test_mqtt_session::test_connects_that_are_answered_with_a_refusal
3.1.2-3 | row | reserved connect flag
3.1.2-4 | test | test_mqtt_listener::test_a_session_lives_across_connections_and_restarts
3.1.2-5 | none | nothing is kept for a client that is away: the listener delivers no messages
3.1.2-6 | test | test_sessions::test_a_clean_session_ends_the_old_one_for_good
3.1.2-7 | none | the listener keeps no retained messages (docs/mqtt-client.md)
3.1.2-8 | test | test_wills::test_a_connection_that_dies_leaves_its_will
3.1.2-9 | row | will missing
3.1.2-10, 3.1.2-12 | test | test_wills::test_only_a_goodbye_forgets_the_will
3.1.2-11, 3.1.2-13 | row | will QoS without a will
3.1.2-14 | row | will QoS 3
3.1.2-15 | row | will retain without a will
3.1.2-16, 3.1.2-17 | none | a will is stored as a reading, retained or not: the listener keeps no retained messages
3.1.2-18, 3.1.2-20 | row | bytes after the last field
3.1.2-19 | row | user missing
3.1.2-21 | row | password missing
3.1.2-22 | row | password without user
3.1.2-23 | client | that a client pings in time shows in 3.1.2-24
3.1.2-24 | test | test_mqtt_session::test_keep_alive_is_one_and_a_half_times
3.1.3-1, 3.1.3-3 | row | client id missing; will missing; user missing; password missing
3.1.3-2 | test | test_mqtt_listener::test_a_session_lives_across_connections_and_restarts
3.1.3-4 | row | client id not UTF-8
3.1.3-5 | test | test_mqtt_statements::test_client_ids_that_every_server_takes
3.1.3-6 | test | test_mqtt_listener::test_an_anonymous_client_gets_a_name
3.1.3-7, 3.1.3-8, 3.1.3-9 | test | test_mqtt_session::test_connects_that_are_answered_with_a_refusal
3.1.3-10 | row | will topic not UTF-8
3.1.3-11 | row | user not UTF-8
3.1.4-1 | row | reserved connect flag; bytes after the last field
3.1.4-2 | test | test_mqtt_listener::test_a_second_connection_of_a_client_takes_over
3.1.4-3 | test | test_sessions::test_a_clean_session_ends_the_old_one_for_good
3.1.4-4 | test | test_mqtt_session::test_whole_byte_by_byte_and_in_every_two_halves
3.1.4-5 | test | test_mqtt_statements::test_behind_a_connect_that_is_refused_nothing_counts
3.2.0-1 | test | test_mqtt_session::test_whole_byte_by_byte_and_in_every_two_halves
3.2.2-1..3 | test | test_mqtt_listener::test_a_session_lives_across_connections_and_restarts
3.2.2-4, 3.2.2-5 | test | test_mqtt_session::test_connects_that_are_answered_with_a_refusal
3.2.2-6 | row | reserved connect flag
3.3.1-1 | client | without DUP the same bytes are another message
3.3.1-2 | row | DUP with QoS 0
3.3.1-3 | none | the listener forwards nothing
3.3.1-4 | row | QoS 3
3.3.1-5..12 | none | the listener keeps no retained messages: each is stored as a reading (docs/mqtt-client.md)
3.3.2-1 | row | topic not UTF-8; topic longer than its packet
3.3.2-2 | row | topic with +
3.3.2-3 | test | test_sparkplug_commands::test_which_filters_are_a_node_s_commands
3.3.4-1 | test | test_mqtt_session::test_acknowledgements_are_one_piece_in_order
3.3.5-1 | none | the listener delivers no messages
3.3.5-2 | row | topic that is not for it
3.6.1-1 | row | PUBREL without its flag
3.8.1-1 | row | SUBSCRIBE without its flag
3.8.3-1 | row | filter not UTF-8
3.8.3-2 | test | test_mqtt_listener::test_subscribers_are_refused_politely_and_named
3.8.3-3 | row | SUBSCRIBE to nothing
3.8.3-4 | row | SUBSCRIBE with QoS 3
3.8.4-1, 3.8.4-2, 3.8.4-4, 3.8.4-5 | test | test_mqtt_statements::test_each_filter_has_its_answer
3.8.4-3, 3.8.4-6 | none | the one subscription that is granted has QoS 0 and no retained messages
3.9.3-1, 3.9.3-2 | test | test_mqtt_statements::test_each_filter_has_its_answer
3.10.1-1 | row | UNSUBSCRIBE without its flag
3.10.3-1 | row | UNSUBSCRIBE from what is not UTF-8
3.10.3-2 | row | UNSUBSCRIBE from nothing
3.10.4-1..2 | test | test_sparkplug_commands::test_a_node_that_is_another_client_s_or_in_a_session_that_stays_is_refused
3.10.4-3 | none | the listener delivers nothing with QoS 1 or 2
3.10.4-4, 3.10.4-5, 3.10.4-6 | test | test_mqtt_statements::test_each_filter_has_its_answer
3.12.4-1 | test | test_mqtt_session::test_whole_byte_by_byte_and_in_every_two_halves
3.14.1-1 | row | DISCONNECT with flags; DISCONNECT with a body
3.14.4-1, 3.14.4-2 | test | test_mqtt_session::test_after_disconnect_nothing_counts
3.14.4-3 | test | test_wills::test_only_a_goodbye_forgets_the_will
4.1.0-1..2 | test | test_sessions::test_no_session_ends_while_its_client_is_there
4.3.1-1 | row | DUP with QoS 0
4.3.2-1 | client | what the sender of a QoS 1 message does; the listener sends none
4.3.2-2 | test | test_mqtt_listener::test_puback_comes_after_the_sync_and_in_one_piece
4.3.3-1 | client | what the sender of a QoS 2 message does; the listener sends none
4.3.3-2 | test | test_mqtt_session::test_qos_2_is_taken_once_until_its_pubrel
4.4.0-1 | none | the listener has sent no message with QoS 1 or 2 that it could send again
4.5.0-1 | none | no session has a subscription that outlives its connection, or a QoS above 0
4.5.0-2 | client | of what a client receives
4.6.0-1..4 | client | in which order a client sends and answers
4.6.0-5..6 | none | the listener forwards nothing; readings of a topic are stored in the order in which they came
4.7.1-1 | row | topic with +
4.7.1-2 | row | filter with # in the middle; filter with # in a word
4.7.1-3 | row | filter with + in a word
4.7.2-1 | test | test_mqtt_access::test_patterns_match_as_subscriptions_do
4.7.3-1 | row | empty topic; filter empty
4.7.3-2 | row | topic with NUL; filter with NUL
4.7.3-3 | test | test_mqtt_statements::test_the_longest_topic_is_taken
4.7.3-4 | test | test_mqtt_access::test_patterns_match_as_subscriptions_do
4.8.0-1 | row | QoS 3; type 0; reserved connect flag
4.8.0-2 | test | test_mqtt_listener::test_a_defect_that_one_clients_bytes_meet_costs_the_others_nothing
6.0.0-1..4 | none | no WebSocket
7.0.0-1 | test | compat/test_mqtt_client_brokers::test_every_qos_is_stored_once_and_acknowledged
7.0.0-2 | test | compat/test_mqtt_clients::test_mosquitto_pub_at_every_quality
7.1.1-1 | none | no broker: the listener takes readings in, refuses subscriptions and says so (docs/mqtt-client.md)
7.1.1-2 | none | TCP, and TLS over it, as 4.2 wants
7.1.2-1, 7.1.2-2 | client | of the client part: tests/compat/test_mqtt_client_brokers.py
"""

_STATEMENTS_5 = """
1.5.4-1 | row | client id not UTF-8; client id with a surrogate; client id over-long UTF-8; topic not UTF-8
1.5.4-2 | row | client id with NUL; topic with NUL; filter with NUL
1.5.4-3 | test | test_mqtt_statements::test_a_byte_order_mark_is_a_character
1.5.5-1 | row | property length over-long; remaining length over-long; remaining length 0 over-long
1.5.7-1 | row | user property with NUL; user property not UTF-8
2.1.3-1 | row | CONNECT with flags; PUBREL without its flag; DISCONNECT with flags; PINGREQ with flags
2.2.1-2 | test | test_mqtt_packets::test_publishes_that_are_none
2.2.1-3 | row | packet identifier 0; SUBSCRIBE with identifier 0; PUBREL with identifier 0
2.2.1-4 | none | the listener sends no message with QoS 1 or 2
2.2.1-5, 2.2.1-6 | test | test_mqtt5_session::test_whole_byte_by_byte_and_in_every_two_halves
2.2.2-1 | row | no properties
3.1.0-1 | row | AUTH first
3.1.0-2 | row | a second CONNECT
3.1.2-1 | row | protocol name
3.1.2-2 | test | test_mqtt_session::test_connects_that_are_answered_with_a_refusal
3.1.2-3 | row | reserved connect flag
3.1.2-4 | test | test_sessions::test_a_clean_start_with_an_end_makes_a_new_session
3.1.2-5, 3.1.2-6 | test | test_mqtt_listener::test_a_session_lives_across_connections_and_restarts
3.1.2-7 | test | test_wills::test_a_connection_that_dies_leaves_its_will
3.1.2-8 | test | test_wills::test_a_delay_ends_with_the_session
3.1.2-9 | row | will missing
3.1.2-10 | test | test_wills::test_only_a_goodbye_forgets_the_will
3.1.2-11 | row | will QoS without a will
3.1.2-12 | row | will QoS 3
3.1.2-13 | row | will retain without a will
3.1.2-14, 3.1.2-15 | none | a will is stored as a reading, retained or not: the listener keeps no retained messages
3.1.2-16, 3.1.2-18 | row | bytes after the last field
3.1.2-17 | row | user missing
3.1.2-19 | row | password missing
3.1.2-20, 3.1.2-21 | client | that a client pings in time shows in 3.1.2-22
3.1.2-22 | test | test_wills::test_silence_beyond_keep_alive_is_a_death
3.1.2-23 | test | test_sessions::test_a_session_lasts_as_long_as_was_asked_after_its_connection
3.1.2-24, 3.1.2-25 | test | test_mqtt5_session::test_nothing_larger_than_the_client_takes_is_sent
3.1.2-26, 3.1.2-27 | none | the listener sends no topic alias
3.1.2-28 | none | the listener never returns response information
3.1.2-29 | test | test_mqtt5_session::test_reasons_in_words_unless_the_client_wants_none
3.1.2-30 | test | test_mqtt5_session::test_enhanced_authentication_is_refused
3.1.3-1, 3.1.3-3 | row | client id missing; will missing; user missing; password missing
3.1.3-2 | test | test_mqtt_listener::test_a_session_lives_across_connections_and_restarts
3.1.3-4 | row | client id not UTF-8
3.1.3-5 | test | test_mqtt_statements::test_client_ids_that_every_server_takes
3.1.3-6, 3.1.3-7 | test | test_mqtt5_session::test_connack_names_what_the_client_left_open
3.1.3-8 | none | a client id is refused for its will's or user's sake only, and 0x85 is never sent to a client of MQTT 5
3.1.3-9 | test | test_wills::test_a_device_that_comes_back_within_the_delay_was_not_dead
3.1.3-10 | none | a reading has no user properties (docs/security.md)
3.1.3-11 | row | will topic not UTF-8
3.1.3-12 | row | user not UTF-8
3.1.4-1 | row | reserved connect flag; bytes after the last field
3.1.4-2 | test | compat/test_mqtt5_clients::test_mosquitto_pub_signs_in
3.1.4-3 | test | compat/test_mqtt5_clients::test_aiomqtt_publishes_and_its_takeover_is_told
3.1.4-4 | test | test_sessions::test_a_clean_start_with_an_end_makes_a_new_session
3.1.4-5 | test | test_mqtt5_session::test_whole_byte_by_byte_and_in_every_two_halves
3.1.4-6 | test | test_mqtt_statements::test_behind_a_connect_that_is_refused_nothing_counts
3.2.0-1, 3.2.0-2 | test | test_mqtt5_session::test_whole_byte_by_byte_and_in_every_two_halves
3.2.2-1..3 | test | compat/test_mqtt5_clients::test_a_paho_session_without_expiry_ends_with_its_connection
3.2.2-4, 3.2.2-5 | client | what a client does about a session that it or the server has not
3.2.2-6, 3.2.2-7, 3.2.2-8 | row | reserved connect flag; session expiry twice
3.2.2-9..12 | none | QoS 0, 1 and 2 are taken, in wills too
3.2.2-13 | none | RETAIN is taken, and means nothing here: Retain Available is 1
3.2.2-14 | client | Retain Available is 1
3.2.2-15 | row | too large
3.2.2-16 | test | test_mqtt5_session::test_connack_names_what_the_client_left_open
3.2.2-17 | row | topic alias too high
3.2.2-18 | test | test_mqtt_statements::test_no_alias_where_none_was_offered
3.2.2-19 | test | test_mqtt5_session::test_nothing_larger_than_the_client_takes_is_sent
3.2.2-20 | none | the listener sends no user properties
3.2.2-21 | client | whose keep-alive holds
3.2.2-22 | test | test_mqtt_session::test_keep_alive_is_one_and_a_half_times
3.3.1-1 | client | without DUP the same bytes are another message
3.3.1-2 | row | DUP with QoS 0
3.3.1-3 | none | the listener forwards nothing
3.3.1-4 | row | QoS 3
3.3.1-5..13 | none | the listener keeps no retained messages: each is stored as a reading (docs/mqtt-client.md)
3.3.2-1 | row | topic not UTF-8; topic longer than its packet
3.3.2-2 | row | topic with +; topic with #
3.3.2-3 | test | test_sparkplug_commands::test_which_filters_are_a_node_s_commands
3.3.2-4..6 | none | the listener forwards nothing: a reading is stored at once and never expires on its way
3.3.2-7 | test | test_mqtt5_session::test_an_alias_is_renamed_and_ends_with_its_connection
3.3.2-8 | row | topic alias 0
3.3.2-9 | row | topic alias too high
3.3.2-10, 3.3.2-11 | none | the listener sends no topic alias
3.3.2-12 | test | compat/test_mqtt5_clients::test_paho_sends_by_alias
3.3.2-13 | row | response topic not UTF-8
3.3.2-14 | row | response topic with a wildcard
3.3.2-15..18, 3.3.2-20 | none | the listener forwards nothing
3.3.2-19 | row | content type not UTF-8
3.3.4-1 | test | test_mqtt5_session::test_whole_byte_by_byte_and_in_every_two_halves
3.3.4-2..5 | none | the listener forwards nothing with QoS 1 or 2, and no subscription identifiers
3.3.4-6 | row | subscription identifier in PUBLISH
3.3.4-7 | test | compat/test_mqtt5_clients::test_paho_overruns_a_smaller_receive_maximum_and_is_told
3.3.4-8 | test | test_mqtt_listener::test_reads_pause_while_too_much_is_unacknowledged
3.3.4-9, 3.3.4-10 | test | test_mqtt5_session::test_the_receive_window_is_enforced_and_given_back
3.4.2-1, 3.5.2-1 | test | test_mqtt5_session::test_topics_that_are_nobodys_are_refused_one_by_one
3.4.2-2..3, 3.5.2-2..3 | none | PUBACK and PUBREC carry no properties
3.6.1-1 | row | PUBREL without its flag
3.6.2-1 | row | PUBREL with a wrong reason
3.6.2-2..3 | client | the listener sends no PUBREL
3.7.2-1 | test | test_mqtt5_session::test_qos_2_is_taken_once_until_its_pubrel_across_connections
3.7.2-2..3 | none | PUBCOMP carries no properties
3.8.1-1 | row | SUBSCRIBE without its flag
3.8.3-1 | row | filter not UTF-8
3.8.3-2 | row | SUBSCRIBE to nothing
3.8.3-3 | none | the listener forwards no client's message
3.8.3-4 | row | “no local” on a share
3.8.3-5 | row | SUBSCRIBE with reserved options
3.8.4-1, 3.8.4-2, 3.8.4-5, 3.8.4-6, 3.8.4-7 | test | test_mqtt_statements::test_each_filter_has_its_answer
3.8.4-3, 3.8.4-4, 3.8.4-8 | none | the one subscription that is granted has QoS 0 and no retained messages
3.9.2-1..2, 3.11.2-1..2 | none | SUBACK and UNSUBACK carry no properties
3.9.3-1, 3.9.3-2, 3.11.3-1, 3.11.3-2 | test | test_mqtt_statements::test_each_filter_has_its_answer
3.10.1-1 | row | UNSUBSCRIBE without its flag
3.10.3-1 | row | UNSUBSCRIBE from what is not UTF-8
3.10.3-2 | row | UNSUBSCRIBE from nothing
3.10.4-1..2 | test | test_sparkplug_commands::test_a_node_that_is_another_client_s_or_in_a_session_that_stays_is_refused
3.10.4-3 | none | the listener delivers nothing with QoS 1 or 2
3.10.4-4, 3.10.4-5, 3.10.4-6 | test | test_mqtt_statements::test_each_filter_has_its_answer
3.12.4-1 | test | test_mqtt5_session::test_whole_byte_by_byte_and_in_every_two_halves
3.14.0-1 | row | reserved connect flag; protocol name
3.14.1-1 | row | DISCONNECT with flags
3.14.2-1 | row | DISCONNECT with an unknown reason; DISCONNECT with a server's reason
3.14.2-2 | none | the listener's DISCONNECT carries no session expiry interval
3.14.2-3 | test | test_mqtt5_session::test_nothing_larger_than_the_client_takes_is_sent
3.14.2-4 | none | the listener sends no user properties
3.14.4-1, 3.14.4-2 | test | test_mqtt5_session::test_the_server_says_why_it_goes
3.14.4-3 | test | test_wills::test_only_a_goodbye_forgets_the_will
3.15.1-1 | row | AUTH with flags
3.15.2-1 | row | AUTH; AUTH with a reason
3.15.2-2..3 | none | the listener sends no AUTH
4.1.0-1 | test | test_sessions::test_no_session_ends_while_its_client_is_there
4.1.0-2 | test | test_sessions::test_a_session_lasts_as_long_as_was_asked_after_its_connection
4.2.0-1 | none | TCP, and TLS over it
4.3.1-1 | row | DUP with QoS 0
4.3.2-1..3 | client | what the sender of a QoS 1 message does; the listener sends none
4.3.2-4, 4.3.2-5 | test | test_mqtt_listener::test_puback_comes_after_the_sync_and_in_one_piece
4.3.3-1..7 | client | what the sender of a QoS 2 message does; the listener sends none
4.3.3-8, 4.3.3-10..12 | test | test_mqtt5_session::test_qos_2_is_taken_once_until_its_pubrel_across_connections
4.3.3-9 | test | test_mqtt5_session::test_topics_that_are_nobodys_are_refused_one_by_one
4.3.3-13 | test | test_mqtt_statements::test_a_message_that_expires_at_once_is_stored_and_acknowledged
4.4.0-1 | none | the listener has sent no message with QoS 1 or 2 that it could send again
4.4.0-2 | row | PUBACK for nothing; PUBREC for nothing
4.5.0-1 | none | no session has a subscription that outlives its connection, or a QoS above 0
4.5.0-2 | client | of what a client receives
4.6.0-1..4 | client | in which order a client sends and answers
4.6.0-5..6 | none | the listener forwards nothing; readings of a topic are stored in the order in which they came
4.7.0-1 | row | topic with +; topic with #
4.7.1-1 | row | filter with # in a word
4.7.1-2 | row | filter with + in a word
4.7.2-1 | test | test_mqtt_access::test_patterns_match_as_subscriptions_do
4.7.3-1 | row | will topic empty; filter empty
4.7.3-2 | row | topic with NUL; filter with NUL
4.7.3-3 | test | test_mqtt_statements::test_the_longest_topic_is_taken
4.7.3-4 | test | test_mqtt_access::test_patterns_match_as_subscriptions_do
4.8.2-1 | row | share without a name; share without a filter
4.8.2-2 | row | share with a wildcard name
4.8.2-3..6 | none | shared subscriptions are refused: Shared Subscription Available is 0
4.9.0-1, 4.9.0-2 | client | the listener sends nothing with QoS 1 or 2
4.9.0-3 | test | test_mqtt_statements::test_other_packets_are_answered_while_the_window_is_full
4.12.0-1 | test | test_mqtt5_session::test_enhanced_authentication_is_refused
4.12.0-2..5, 4.12.1-1..2 | none | enhanced authentication is refused with CONNECT
4.12.0-6 | none | the listener sends no AUTH
4.12.0-7 | row | AUTH
4.13.1-1 | row | QoS 3; a second CONNECT; type 0
4.13.2-1 | test | test_mqtt_listener::test_garbage_closes_its_own_connection_only
6.0.0-1..4 | none | no WebSocket
"""


class Proof(NamedTuple):
    """What stands behind one statement: `how` is row, test, client or none."""

    number: str
    how: str
    what: str


def numbers(text: str) -> list[str]:
    """The statements that are named as `3.1.2-4` or `3.1.2-4..6`."""
    found = []
    for section, first, last in re.findall(r"(\d+\.\d+\.\d+)-(\d+)(?:\.\.(\d+))?", text):
        found += [f"{section}-{number}" for number in range(int(first), int(last or first) + 1)]
    return found


def proofs(level: int) -> list[Proof]:
    """One for each number of a line of the table, in its order."""
    found = []
    for line in (_STATEMENTS_4 if level == 4 else _STATEMENTS_5).strip().splitlines():
        names, how, what = line.split(" | ")
        found += [Proof(number, how, what) for number in numbers(names)]
    return found
