package millrace.peers.job;

import java.util.HashMap;
import java.util.Map;

/** The command line: {@code --name value}, over and over. */
public final class Arguments {
    private final Map<String, String> values = new HashMap<>();

    public Arguments(String[] words) {
        for (int place = 0; place < words.length; place += 2) {
            if (!words[place].startsWith("--") || place + 1 == words.length) {
                throw new IllegalArgumentException("found " + words[place] + ", wanted --name and a value");
            }
            values.put(words[place].substring(2), words[place + 1]);
        }
    }

    public String get(String name) {
        String value = values.get(name);
        if (value == null) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return value;
    }

    public int number(String name) {
        return Integer.parseInt(get(name));
    }
}
