// Shows tokens of a response as text. Shade: probability of the token; underline: a sibling contains the same sequence.

import type { ComponentChild } from "preact";

import type { Agreement } from "./agreement";
import type { Response } from "./responses";
import { LEAST_PROBABILITIES, shadeOf, shadeWords } from "./shades";

interface TokensProps {
  response: Response;
  agreement: Agreement;
  from: number;
  to: number;
  /** Whether each token has its own span, for the pointer to select it; else adjacent tokens of one style share a span. */
  each?: boolean;
  chosen?: number;
}

export function Tokens({ response, agreement, from, to, each = false, chosen = -1 }: TokensProps) {
  const spans: ComponentChild[] = [];
  let [looks, words, begin] = ["", "", from];
  const end = (next: number): void => {
    if (words) {
      spans.push(
        <span key={begin} class={looks || undefined} data-token={each ? begin : undefined}>
          {words}
        </span>,
      );
    }
    [words, begin] = ["", next];
  };
  for (let place = from; place < Math.min(to, response.tokens.length); place++) {
    const look = lookOf(response, agreement, place) + (place === chosen ? " chosen" : "");
    if (each || look !== looks) {
      end(place);
      looks = look;
    }
    words += wordOf(response, place);
  }
  end(to);
  return <>{spans}</>;
}

/** Returns a token as text, or its id without a tokenizer. */
export function wordOf(response: Response, place: number): string {
  return response.text ? (response.text[place] ?? "") : `${response.tokens[place]} `;
}

function lookOf(response: Response, agreement: Agreement, place: number): string {
  const shade = response.logprobs ? shadeOf(response.logprobs[place]) : 0;
  const looks = shade > 0 ? `shade${shade}` : shade < 0 ? "unscored" : "";
  if (place < agreement.prefix) return `${looks} prefix`;
  return agreement.marksOf(response.index)[place] === 1 ? `${looks} shared` : looks;
}

export function Legend({ logprobs, siblings }: { logprobs: boolean; siblings: boolean }) {
  return (
    <ul class="legend" aria-label="Legend">
      {logprobs && (
        <>
          <li>probability of the token</li>
          {LEAST_PROBABILITIES.map((_, shade) => (
            <li key={shade}>
              <span class={`swatch shade${shade}`}>{shadeWords(shade)}</span>
            </li>
          ))}
        </>
      )}
      {!logprobs && <li>This job records no log-probabilities.</li>}
      {siblings && (
        <>
          <li>
            <span class="prefix">common beginning of all responses</span>
          </li>
          <li>
            <span class="shared">also in a sibling</span>
          </li>
        </>
      )}
    </ul>
  );
}
