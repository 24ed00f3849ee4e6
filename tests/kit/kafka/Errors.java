import org.apache.kafka.common.errors.RetriableException;

/** Kafka's error codes, one a line: the number, its name, and whether a client may ask again. */
public class Errors {
    public static void main(String[] arguments) {
        for (var error : org.apache.kafka.common.protocol.Errors.values())
            if (error.code() > 0)
                System.out.println(
                    error.code() + " " + error.name() + " " + (error.exception() instanceof RetriableException));
    }
}
