// Kafka Streams at the `windows` benchmark: exactly once v2, one thread, results when a window closes (suppress).
//
//     Windows BOOTSTRAP INPUT OUTPUT GROUP READINGS FOLDER
//
// Says `first`, `half` and `last` with the time at which it had those readings, and goes on until it is ended.

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;

public class Windows {
    record State(long count, double sum, double min, double max) {
        State add(double value) {
            return new State(count + 1, sum + value, Math.min(min, value), Math.max(max, value));
        }
    }

    static final ObjectMapper JSON = new ObjectMapper();
    static long seen;

    static double parse(byte[] value, long readings) {
        seen++;
        if (seen == 1 || seen == readings / 2 || seen == readings) {
            String what = seen == 1 ? "first" : seen == readings ? "last" : "half";
            System.out.println(what + " " + System.currentTimeMillis() / 1e3);
            System.out.flush();
        }
        try {
            return JSON.readTree(value).get("value").doubleValue();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static Serde<State> serde() {
        Serializer<State> out = (topic, state) -> state == null ? null : ByteBuffer.allocate(32)
            .putLong(state.count).putDouble(state.sum).putDouble(state.min).putDouble(state.max).array();
        Deserializer<State> in = (topic, bytes) -> {
            if (bytes == null) {
                return null;
            }
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            return new State(buffer.getLong(), buffer.getDouble(), buffer.getDouble(), buffer.getDouble());
        };
        return Serdes.serdeFrom(out, in);
    }

    public static void main(String[] given) {
        long readings = Long.parseLong(given[4]);
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, given[3]);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given[0]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, given[5]);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");

        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(given[1], Consumed.with(Serdes.String(), Serdes.ByteArray()))
            .mapValues(value -> parse(value, readings))
            .groupByKey(Grouped.with(Serdes.String(), Serdes.Double()))
            .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofSeconds(60)))
            .aggregate(
                () -> new State(0, 0, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY),
                (key, value, state) -> state.add(value),
                Materialized.with(Serdes.String(), serde()))
            .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
            .toStream()
            .map((window, state) -> KeyValue.pair(
                window.key(),
                String.format("{\"start\":%d,\"count\":%d,\"mean\":%s,\"min\":%s,\"max\":%s}",
                    window.window().start(), state.count, state.sum / state.count, state.min, state.max)))
            .to(given[2], Produced.with(Serdes.String(), Serdes.String()));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
